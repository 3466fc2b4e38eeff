"""The steps of this field: from pairs to a gold reward. An arm is an expression of these.

Heavy libraries are imported inside ``compute``: plans are made, and clusters driven, by processes
that hold no torch.
"""

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store, Workspace
from weakteach.evaluation.agreement import compare_labels
from weakteach.evaluation.gold import Gold, Scoring, prompt_id
from weakteach.models.resources import Resources
from weakteach.models.spec import Model, Tokenizer
from weakteach.preferences.pair import CHUNK_ROWS, DataError, write_pairs
from weakteach.preferences.sources import Source
from weakteach.preferences.split import hold_out, split_pairs
from weakteach.training.recipes import DpoRecipe, SftRecipe

TEXT_COLUMNS = ("prompt", "response_1", "response_2")

# The step that holds a policy, or a pretrained model as it is.
Policy = Model | Step


@dataclass(frozen=True)
class Part:
    """A table of pairs in an artifact of Pairs, HeldOut or Split; human choices lie beside it."""

    step: Step
    name: str

    def file(self, store: Store) -> str:
        return f"{store.path(self.step)}/{self.name}.parquet"

    def read(self, store: Store) -> pa.Table:
        return pq.read_table(self.file(store), filesystem=store.filesystem)

    def human_choices(self, store: Store) -> pa.Table:
        """``pair_id, choice`` of those pairs of the part that a human labeled."""
        path = f"{store.path(self.step)}/choices.parquet"
        choices = pq.read_table(path, filesystem=store.filesystem)
        ids = pa.table({"pair_id": self.read(store)["pair_id"]})
        return ids.join(choices, "pair_id", join_type="inner").sort_by("pair_id")


@dataclass(frozen=True)
class Dequantized(Step):
    """A GGUF model as a plain float32 model folder."""

    model: Model

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.models.loading import dequantize

        dequantize(self.model, workspace.out)
        return {"model": self.model.label}

    def __str__(self) -> str:
        return self.model.label


@dataclass(frozen=True)
class Pairs(Step):
    """The pairs of a source, filtered by the tokens of every model concerned."""

    source: Source
    tokenizers: tuple[Tokenizer | Dequantized, ...]
    max_tokens: int = 512

    @property
    def all(self) -> Part:
        return Part(self, "pairs")

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.models.tokens import load_tokenizer, pair_tokens

        tokenizers = [
            load_tokenizer(t.location if isinstance(t, Tokenizer) else workspace.store.local(t))
            for t in self.tokenizers
        ]

        def count_tokens(pairs: list[Any]) -> list[int]:
            texts = [[getattr(p, name) for p in pairs] for name in TEXT_COLUMNS]
            counts = [[t.longest for t in pair_tokens(tok, *texts)] for tok in tokenizers]
            return [max(lengths) for lengths in zip(*counts, strict=True)]

        counts = write_pairs(
            self.source.read(), workspace.out, self.source.name, count_tokens, self.max_tokens
        )
        if not counts["pairs"]:
            first = pq.read_table(workspace.out / "quarantine.parquet").slice(0, 1).to_pylist()
            why = "".join(f", the first ({row['place']}) for: {row['reason']}" for row in first)
            raise DataError(
                f"{self.source.name} holds no usable pair: all of its {counts['rows']} rows are in "
                f"quarantine{why}"
            )
        return counts


@dataclass(frozen=True)
class HeldOut(Step):
    """The pairs cut into test and training part, disjoint by prompt; alike for every seed."""

    pairs: Pairs
    test_pairs: int

    @property
    def test(self) -> Part:
        return Part(self, "test")

    @property
    def train(self) -> Part:
        return Part(self, "train")

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        table = self.pairs.all.read(workspace.store)
        test, train = hold_out(table, self.test_pairs)
        return _write_parts(workspace, self.pairs.all, {"test": test, "train": train})


@dataclass(frozen=True)
class Split(Step):
    """The training pairs cut into labeled and unlabeled part, disjoint by prompt."""

    held_out: HeldOut
    fraction: Fraction
    seed: int

    @property
    def labeled(self) -> Part:
        return Part(self, "labeled")

    @property
    def unlabeled(self) -> Part:
        return Part(self, "unlabeled")

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        table = self.held_out.train.read(workspace.store)
        labeled, unlabeled = split_pairs(table, self.fraction, self.seed)
        parts = {"labeled": labeled, "unlabeled": unlabeled}
        return _write_parts(workspace, self.held_out.train, parts)


def _write_parts(workspace: Workspace, whole: Part, parts: dict[str, pa.Table]) -> dict[str, Any]:
    for name, table in parts.items():
        pq.write_table(table, workspace.out / f"{name}.parquet", row_group_size=CHUNK_ROWS)
    pq.write_table(whole.human_choices(workspace.store), workspace.out / "choices.parquet")
    return {name: len(table) for name, table in parts.items()}


@dataclass(frozen=True)
class HumanLabels(Step):
    """The human choices of a part."""

    part: Part

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        choices = self.part.human_choices(workspace.store)
        if not len(choices):
            raise DataError(f"No pair of the {self.part.name} part has a human choice")
        pq.write_table(choices, workspace.out / "labels.parquet")
        return {"rows": len(choices)}


@dataclass(frozen=True)
class GoldLabels(Step):
    """For each pair of a part the response with the higher gold reward, the second on a tie."""

    part: Part
    gold: Gold

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.labeling.annotators import label_table
        from weakteach.labeling.stream import Stream, stream_chunks

        store, resources = workspace.store, _resources(workspace)
        columns = ("response_1", "response_2")
        work = Scoring(
            store, self.gold, "pair_id", columns, resources.dtype, resources.batch_tokens
        )
        stream = Stream(store, self.part.file(store), f"{workspace.scratch}/shards", work)
        scored = stream_chunks(stream, resources, workspace.progress)
        rewards = np.stack([scored[f"{name}_reward"].to_numpy() for name in columns], axis=1)
        labels = label_table(scored["pair_id"].to_pylist(), rewards)
        pq.write_table(labels, workspace.out / "labels.parquet")
        return {"rows": len(labels)}


@dataclass(frozen=True)
class Sft(Step):
    """Supervised fine-tuning of a policy on the chosen responses."""

    start: Policy
    labels: "Labels"
    recipe: SftRecipe
    seed: int

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.training.sft import train_sft

        return run_training(self, train_sft, workspace)


@dataclass(frozen=True)
class Dpo(Step):
    """Direct preference optimization of a policy, which is its own reference."""

    start: Policy
    labels: "Labels"
    recipe: DpoRecipe
    seed: int

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.training.dpo import train_dpo

        return run_training(self, train_dpo, workspace)


@dataclass(frozen=True)
class WeakLabels(Step):
    """Labels of a part by the teacher's implicit reward."""

    teacher: Dpo
    part: Part

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.labeling.annotators import ImplicitReward
        from weakteach.labeling.stream import Stream, stream_chunks

        store, resources = workspace.store, _resources(workspace)
        annotator = ImplicitReward(
            store,
            self.teacher,
            self.teacher.start,
            self.teacher.recipe.beta,
            resources.dtype,
            resources.batch_tokens,
        )
        stream = Stream(store, self.part.file(store), f"{workspace.scratch}/shards", annotator)
        labels = stream_chunks(stream, resources, workspace.progress)
        labels = labels.replace_schema_metadata({"annotator": self.teacher.fingerprint})
        pq.write_table(labels, workspace.out / "labels.parquet")
        return {"rows": len(labels)}


Labels = HumanLabels | GoldLabels | WeakLabels


@dataclass(frozen=True)
class Agreement(Step):
    """How weak labels agree with human choices and, where known, with gold labels."""

    labels: WeakLabels
    gold: GoldLabels | None = None

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        store = workspace.store
        human = self.labels.part.human_choices(store)
        if not len(human):
            raise DataError(f"No pair of the {self.labels.part.name} part has a human choice")
        gold = read_labels(store, self.gold) if self.gold else None
        return asdict(compare_labels(read_labels(store, self.labels), human, gold))


@dataclass(frozen=True)
class Generate(Step):
    """One sampled response to each prompt of a part. The draw of a prompt depends on the seed
    and the prompt alone."""

    policy: Policy
    part: Part
    seed: int
    temperature: float = 0.7
    max_new_tokens: int = 256

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.evaluation.responses import Sampling
        from weakteach.labeling.stream import Stream, stream_chunks

        store, resources = workspace.store, _resources(workspace)
        prompts = sorted(set(self.part.read(store)["prompt"].to_pylist()))
        table = pa.table({"prompt_id": [prompt_id(p) for p in prompts], "prompt": prompts})
        queue = f"{workspace.scratch}/prompts.parquet"
        pq.write_table(
            table.sort_by("prompt_id"),
            queue,
            filesystem=store.filesystem,
            row_group_size=CHUNK_ROWS,
        )
        work = Sampling(
            store,
            self.policy,
            self.seed,
            self.temperature,
            self.max_new_tokens,
            resources.dtype,
            resources.batch_tokens,
        )
        stream = Stream(store, queue, f"{workspace.scratch}/shards", work)
        responses = stream_chunks(stream, resources, workspace.progress)
        pq.write_table(responses, workspace.out / "responses.parquet", row_group_size=CHUNK_ROWS)
        return {"rows": len(responses)}


@dataclass(frozen=True)
class GoldReward(Step):
    """The gold reward of each generated response, and their mean with its standard error."""

    responses: Generate
    gold: Gold

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.labeling.stream import Stream, stream_chunks

        store, resources = workspace.store, _resources(workspace)
        work = Scoring(
            store, self.gold, "prompt_id", ("response",), resources.dtype, resources.batch_tokens
        )
        file = f"{store.path(self.responses)}/responses.parquet"
        stream = Stream(store, file, f"{workspace.scratch}/shards", work)
        scored = stream_chunks(stream, resources, workspace.progress)
        scored = scored.rename_columns([n.removeprefix("response_") for n in scored.column_names])
        pq.write_table(scored, workspace.out / "rewards.parquet")
        rewards = scored["reward"].to_numpy()
        if len(rewards) < 2:
            raise DataError("A mean gold reward needs at least 2 test prompts")
        facts = {
            "rows": len(rewards),
            "mean": float(rewards.mean()),
            "se": float(rewards.std(ddof=1) / np.sqrt(len(rewards))),
        }
        if "garbage" in scored.column_names:
            facts["garbage"] = float(scored["garbage"].to_numpy().mean())
        return facts


def read_labels(store: Store, labels: Labels) -> pa.Table:
    return pq.read_table(f"{store.path(labels)}/labels.parquet", filesystem=store.filesystem)


def _resources(workspace: Workspace) -> Resources:
    return workspace.execution or Resources()


def run_training(step: "Sft | Dpo", train: Any, workspace: Workspace) -> dict[str, Any]:
    from weakteach.training.launch import launch
    from weakteach.training.worker import TrainingJob

    store = workspace.store
    job = TrainingJob(
        store=store,
        start=step.start,
        pairs=step.labels.part.file(store),
        labels=f"{store.path(step.labels)}/labels.parquet",
        recipe=step.recipe,
        seed=step.seed,
        resources=_resources(workspace),
        stage=workspace.stage,
        run_folder=str(workspace.run_folder / "trainer"),
        progress=None if _resources(workspace).train_workers else workspace.progress,
    )
    return launch(train, job, str(step).replace("/", "-"), workspace.scratch_url)
