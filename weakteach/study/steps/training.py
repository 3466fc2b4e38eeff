"""Steps that train a policy on labels."""

from dataclasses import dataclass
from typing import Any

from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Workspace
from weakteach.study.steps.data import Labels, Policy, resources_of
from weakteach.training.recipes import DpoRecipe, SftRecipe


@dataclass(frozen=True)
class Sft(Step):
    """Supervised fine-tuning of a policy on the chosen responses."""

    start: Policy
    labels: Labels
    recipe: SftRecipe
    seed: int

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.training.sft import train_sft

        return run_training(self, train_sft, workspace)


@dataclass(frozen=True)
class Dpo(Step):
    """Direct preference optimization of a policy, which is its own reference."""

    start: Policy
    labels: Labels
    recipe: DpoRecipe
    seed: int

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.training.dpo import train_dpo

        return run_training(self, train_dpo, workspace)


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
        resources=resources_of(workspace),
        stage=workspace.stage,
        run_folder=str(workspace.run_folder / "trainer"),
        progress=None if resources_of(workspace).train_workers else workspace.progress,
    )
    return launch(train, job, str(step).replace("/", "-"), workspace.scratch_url)
