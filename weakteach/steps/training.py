"""Steps that train a policy on labels.

With ``as_long_as``, training makes as many updates as the same recipe would make on those other
labels, so that arms with different numbers of labels can be trained for equally long. ``dtype`` is
that of the computation; weights that are trained are float32 in any case. ``saved`` is the dtype in
which the weights of a whole model are written: whoever reads them in a smaller dtype would cast
them anyway.

The best length of a training can also be found out: a ``Dpo`` with ``until`` stops after an epoch
if the loss on those labels, of other pairs, is not below that after the epoch before. A second
``Dpo``, ``as_long_as`` the first, makes as many updates as gave the first its least loss.
"""

from dataclasses import dataclass, replace
from typing import Any

import pyarrow.compute as pc

from weakteach.artifacts.errors import StepError
from weakteach.artifacts.step import Step, Workspace
from weakteach.artifacts.store import Store
from weakteach.models.memory import (
    Fit,
    Memory,
    Shape,
    choose_fit,
    starting_memory,
    tokens_at_once,
    ways_to_fit,
)
from weakteach.models.resources import Resources, room_of
from weakteach.models.size import shape_for
from weakteach.models.spec import Dtype, Model
from weakteach.steps.data import (
    Converted,
    Dequantized,
    Labels,
    Policy,
    Pretrained,
    labels_file,
    read_labels,
    resources_of,
)
from weakteach.training.recipes import DpoRecipe, RewardRecipe, SftRecipe


@dataclass(frozen=True)
class Sft(Step):
    """Supervised fine-tuning of a policy on the chosen responses."""

    start: Policy
    labels: Labels
    recipe: SftRecipe
    seed: int
    as_long_as: Labels | None = None
    dtype: Dtype = "float32"
    saved: Dtype = "float32"

    @property
    def bulk(self) -> tuple[str, ...]:
        """Whole weights are bulk; adapters are small."""
        return () if self.recipe.lora else ("*.safetensors",)

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.training.sft import train_sft

        return run_training(self, train_sft, workspace)


@dataclass(frozen=True)
class Dpo(Step):
    """Direct preference optimization. The policy that training starts from is the reference."""

    VERSION = 2

    start: Policy
    labels: Labels
    recipe: DpoRecipe
    seed: int
    as_long_as: "Labels | Dpo | None" = None
    dtype: Dtype = "float32"
    until: Labels | None = None
    saved: Dtype = "float32"

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.training.dpo import train_dpo

        return run_training(self, train_dpo, workspace)


@dataclass(frozen=True)
class RewardHead(Step):
    """A reward model: a language model with a scalar head, trained to tell chosen responses from
    rejected ones."""

    VERSION = 2

    start: Policy
    labels: Labels
    recipe: RewardRecipe
    seed: int
    as_long_as: Labels | None = None
    dtype: Dtype = "float32"
    saved: Dtype = "float32"

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.training.reward_head import train_reward_head

        return run_training(self, train_reward_head, workspace)

    def __str__(self) -> str:
        return f"reward model trained from {self.start}"


def best_updates(store: Store, stopped: Dpo) -> int:
    """The number of updates that gave ``stopped`` its least loss on held-out pairs. Raises
    StepError if that training had no held-out pairs."""
    record = store.record(stopped)
    assert record is not None  # it is an input of the step that asks
    found = record["facts"].get("best_updates")
    if found is None:
        raise StepError(f"{stopped} looked at no held-out pairs: it tells no number of updates")
    return int(found)


def sft_before(
    then: DpoRecipe,
    start: Policy,
    labels: Labels,
    recipe: SftRecipe,
    seed: int,
    dtype: Dtype,
    as_long_as: Labels | None = None,
) -> Sft:
    """The SFT of a study in which everything is computed in ``dtype``. Its weights are saved in
    ``dtype``, too, but in float32 if they are adapters, which are small, or if the DPO that comes
    ``then`` trains all of them."""
    saved: Dtype = "float32" if recipe.lora or not then.lora else dtype
    return Sft(start, labels, recipe, seed, as_long_as, dtype, saved)


def dpo_from(
    start: Policy,
    labels: Labels,
    recipe: DpoRecipe,
    seed: int,
    dtype: Dtype,
    as_long_as: Labels | Dpo | None = None,
    until: Labels | None = None,
) -> Dpo:
    """The DPO of a study in which everything is computed in ``dtype``. Whole weights are saved in
    ``dtype``, too, since no training starts from them."""
    saved: Dtype = "float32" if recipe.lora else dtype
    return Dpo(start, labels, recipe, seed, as_long_as, dtype, until, saved)


def run_training(
    step: "Sft | Dpo | RewardHead", train: Any, workspace: Workspace
) -> dict[str, Any]:
    from weakteach.training.launch import launch
    from weakteach.training.worker import TrainingJob

    store, recipe = workspace.store, step.recipe
    if step.as_long_as:
        if isinstance(step.as_long_as, Dpo):
            updates = best_updates(store, step.as_long_as)
        else:
            updates = recipe.schedule.updates(len(read_labels(store, step.as_long_as)))
        recipe = replace(recipe, schedule=replace(recipe.schedule, steps=updates))
    until = step.until if isinstance(step, Dpo) else None
    resources = resources_of(workspace)
    if resources.train_workers_max:
        model = base_model(step.start)
        lengths = step.labels.part.read(store, ["n_tokens"])["n_tokens"]
        longest = pc.max(lengths).as_py()
        resources = spread(step, shape_for(model) if model else None, resources, longest)
    job = TrainingJob(
        store=store,
        start=step.start,
        pairs=step.labels.part.file(store),
        labels=labels_file(store, step.labels),
        recipe=recipe,
        seed=step.seed,
        dtype=step.dtype,
        saved=step.saved,
        resources=resources,
        stage=workspace.stage,
        run_folder=str(workspace.run_folder / "trainer"),
        progress=None if resources.train_workers else workspace.progress,
        held_out=(until.part.file(store), labels_file(store, until)) if until else None,
    )
    name = f"{type(step).__name__}-{step.fingerprint}"
    return launch(train, job, name, workspace.scratch_url, workspace.scratch, workspace.progress)


def base_model(policy: Policy) -> Model | None:
    """The pretrained model that a policy is or was trained from; None if it is not known."""
    match policy:
        case Model():
            return policy
        case Converted() | Dequantized() | Pretrained():
            return policy.model
        case Sft() | Dpo() | RewardHead():
            return base_model(policy.start)
        case _:
            return None


def plan_fit(
    step: Sft | Dpo | RewardHead, shape: Shape, resources: Resources, length: int, room: float
) -> Fit | None:
    """How the training of a step fits GPUs of ``room`` bytes. None if it does not, or if what the
    step reads before anything is sharded does not."""
    before = before_training(step, shape, resources)
    if before and before.on_gpu > room:
        return None
    workers = max(1, resources.train_workers)
    tokens, ways = tokens_of(step, resources, length), ways_to_fit(resources.fit, workers)
    if is_over_nf4(step) or (isinstance(step, RewardHead) and step.recipe.lora):
        ways = [way for way in ways if way.shards == 1]
    how = (rank_of(step), workers, room, ways, is_over_nf4(step))
    return choose_fit(shape, tokens, step.dtype, *how)


def before_training(
    step: Sft | Dpo | RewardHead, shape: Shape, resources: Resources
) -> Memory | None:
    """The memory that a step takes before its model is made to fit: DPO reads the whole model for
    the reference. None for other steps."""
    if not isinstance(step, Dpo):
        return None
    how = (step.dtype, rank_of(step), is_over_nf4(step))
    return starting_memory(shape, resources.batch_tokens, *how)


def tokens_of(step: Sft | Dpo | RewardHead, resources: Resources, length: int) -> int:
    """Tokens that a device reads at once in the training of a step, if pairs have ``length``
    tokens."""
    share = max(1, step.recipe.schedule.batch // max(1, resources.train_workers))
    rows = 1 if isinstance(step, Sft) else 2
    return tokens_at_once(share, rows, length, resources.train_tokens)


def is_over_nf4(step: Step) -> bool:
    """Whether a step trains adapters over a base in 4 bits."""
    trains = isinstance(step, Sft | Dpo | RewardHead) and step.recipe.lora
    return bool(trains and trains.over_nf4)


def rank_of(step: Sft | Dpo | RewardHead) -> int:
    """The rank of the adapters that a step trains; 0 if it trains all weights."""
    return step.recipe.lora.rank if step.recipe.lora else 0


def spread(
    step: Sft | Dpo | RewardHead, shape: Shape | None, resources: Resources, length: int
) -> Resources:
    """The resources with the number of workers that train a model of this ``shape``:
    ``train_workers``, or ``train_workers_max`` if an estimate says that it does not fit the GPUs of
    those, or if it is to be sharded. What fits one GPU is not spread further, to send no gradients
    over a network: more arms run instead."""
    if not resources.train_workers_max:
        return resources
    many = replace(resources, train_workers=resources.train_workers_max, train_workers_max=0)
    if resources.fit.startswith("sharded"):
        return many
    few, room = replace(resources, train_workers_max=0), room_of(resources)
    if shape is None or room is None or plan_fit(step, shape, few, length, room):
        return few
    return many
