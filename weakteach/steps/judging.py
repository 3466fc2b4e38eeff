"""Steps that ask a chat model or a gold reward which of two responses is better.

The questions are sent by threads of the process that computes the step; no accelerator is needed.
"""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from weakteach.artifacts.errors import StepError
from weakteach.artifacts.step import Step, Workspace
from weakteach.evaluation.judge import Judge, RewardJudge, judge_contests
from weakteach.evaluation.verdicts import contest_outcomes, summarize_verdicts
from weakteach.labeling.prompted import TextKind, annotate, describe_answers
from weakteach.models.chat.endpoint import Chat, draw_seed
from weakteach.models.chat.session import ChatSession, no_answer
from weakteach.preferences.pair import DataError
from weakteach.steps.data import TEXT_COLUMNS, Labels, Part, read_labels
from weakteach.steps.evaluation import Generate, GoldReward, first_responses, first_rewards
from weakteach.steps.labels import GoldLabels


@dataclass(frozen=True)
class PromptedLabels(Labels):
    """Labels by a chat model that is asked which response is better, once in each order of the two.

    A pair has no label unless both answers are clear. ``answers.parquet`` holds all replies. Raises
    StepError if no pair got a label.
    """

    chat: Chat
    part: Part
    domain: TextKind = "dialogue"
    seed: int = 0

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        store, labels, answers = workspace.store, [], []
        with store.filesystem.open_input_file(self.part.file(store)) as source:
            pairs = pq.ParquetFile(source)
            folder, questions = f"{workspace.scratch}/answers", 2 * pairs.metadata.num_rows
            with ChatSession(self.chat, store, folder, questions, workspace.progress) as session:
                for group in range(pairs.num_row_groups):
                    chunk = pairs.read_row_group(group, columns=["pair_id", *TEXT_COLUMNS])
                    chunk_labels, chunk_answers = annotate(session, self.domain, chunk, self.seed)
                    labels.append(chunk_labels)
                    answers.append(chunk_answers)
        said = pa.concat_tables(answers)
        facts = describe_answers(said)
        if not facts["rows"]:
            why = no_answer(session, said["reply"].to_pylist())
            raise StepError(f"{self.chat} labeled none of {facts['missing']} pairs: {why}")
        table = pa.concat_tables(labels).replace_schema_metadata({"annotator": self.fingerprint})
        pq.write_table(table, workspace.out / "labels.parquet")
        pq.write_table(said, workspace.out / "answers.parquet")
        return {**facts, **session.facts}


@dataclass(frozen=True)
class Verdicts(Step):
    """Verdicts of a judge on two policies' responses to the same prompts. A win is one of
    ``first``.

    At most ``prompts`` prompts are judged, by the first response to each; the seed draws which
    prompts.
    """

    first: Generate
    second: Generate
    judge: Judge
    prompts: int = 100
    repeats: int = 1
    seed: int = 0
    # The gold rewards of the responses, which a RewardJudge reads; other judges read none.
    rewards: tuple[GoldReward, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        if isinstance(self.judge, RewardJudge):
            rewards = tuple(GoldReward(side, self.judge.gold) for side in (self.first, self.second))
            object.__setattr__(self, "rewards", rewards)

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        store, keys = workspace.store, ["prompt_id", "prompt"]
        first, second = (
            first_responses(store, side).rename_columns({"response": f"response_{number}"})
            for number, side in enumerate((self.first, self.second), 1)
        )
        contests = first.join(second, keys, join_type="inner")
        for number, step in enumerate(self.rewards, 1):
            rewards = first_rewards(store, step).rename_columns({"reward": f"reward_{number}"})
            contests = contests.join(rewards, "prompt_id", join_type="inner")
        contests = contests.rename_columns({"prompt_id": "id"})
        if not len(contests):
            raise DataError("The two policies answer no prompt in common")
        contests = _drawn(contests, self.prompts, self.seed)
        verdicts, facts = judge_contests(self.judge, contests, self.repeats, self.seed, workspace)
        pq.write_table(verdicts, workspace.out / "verdicts.parquet")
        return {**summarize_verdicts(contests, verdicts).facts, **facts}


@dataclass(frozen=True)
class PairVerdicts(Step):
    """Verdicts of a judge on the two responses of labeled pairs. A win is one of response 1.

    At most ``pairs`` pairs are judged; the seed draws which. The fact ``with_label`` counts the
    pairs in which the response that the label chooses won.
    """

    labels: Labels
    judge: Judge
    pairs: int = 100
    repeats: int = 10
    seed: int = 0
    # The gold rewards of the pairs, which a RewardJudge reads; other judges read none.
    rewards: GoldLabels | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if isinstance(self.judge, RewardJudge):
            rewards = GoldLabels(self.labels.part, self.judge.gold)
            object.__setattr__(self, "rewards", rewards)

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        store = workspace.store
        labels = read_labels(store, self.labels).select(["pair_id", "choice"])
        texts = self.labels.part.read(store).select(["pair_id", *TEXT_COLUMNS])
        contests = texts.join(labels, "pair_id", join_type="inner")
        if self.rewards:
            rewards = read_labels(store, self.rewards).select(["pair_id", "reward_1", "reward_2"])
            contests = contests.join(rewards, "pair_id", join_type="inner")
        contests = contests.rename_columns({"pair_id": "id"})
        if not len(contests):
            raise DataError(f"No pair of the {self.labels.part.name} part is labeled")
        contests = _drawn(contests, self.pairs, self.seed)
        verdicts, facts = judge_contests(self.judge, contests, self.repeats, self.seed, workspace)
        pq.write_table(verdicts, workspace.out / "verdicts.parquet")
        won = contest_outcomes(verdicts)
        choices = zip(contests["id"].to_pylist(), contests["choice"].to_pylist(), strict=True)
        sided = [won[key] == (1 if choice == 1 else -1) for key, choice in choices]
        summary = summarize_verdicts(contests, verdicts).facts
        return {**summary, "with_label": sum(sided), **facts}


def _drawn(contests: pa.Table, count: int, seed: int) -> pa.Table:
    """``count`` of the rows, drawn by the seed, or all if there are fewer; sorted by id."""
    ids = contests["id"].to_pylist()
    kept = sorted(ids, key=lambda key: (draw_seed(seed, key), key))[:count]
    return contests.filter(pc.is_in(contests["id"], pa.array(kept))).sort_by("id")
