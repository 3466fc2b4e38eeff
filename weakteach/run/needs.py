"""What a study needs of the hub and of its data, gathered from its grid and its steps."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, is_dataclass
from typing import Any

from weakteach.artifacts.identity import identity_fields
from weakteach.artifacts.step import Step, walk
from weakteach.evaluation.gold import RewardModel
from weakteach.models.spec import UNRESOLVED, Model, RewardForm
from weakteach.models.tiny.family import FAMILY
from weakteach.preferences.sources import (
    FileSource,
    FilesSource,
    HubSource,
    Source,
    WorldSource,
)
from weakteach.steps.data import Converted, Dequantized, Pairs
from weakteach.steps.evaluation import Generate, Similarity
from weakteach.steps.training import base_model
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment, arms_of
from weakteach.study.policies import model_of


@dataclass(frozen=True)
class Needs:
    """Models that are trained or that label, those of them that write responses, gold reward models
    with the form in which they read pairs, models of sentences, and sources of pairs. Each occurs
    once; embedded ones are left out."""

    models: tuple[Model, ...]
    writers: tuple[Model, ...]
    golds: tuple[tuple[Model, RewardForm], ...]
    embeddings: tuple[Model, ...]
    sources: tuple[Source, ...]

    @property
    def of_hub(self) -> bool:
        """Whether the revision of any model or source is still to be looked up on the hub."""
        models = (*self.models, *(model for model, _ in self.golds), *self.embeddings)
        sources = (source for source in self.sources if isinstance(source, HubSource))
        return any(model.content.endswith(f"@{UNRESOLVED}") for model in models) or any(
            source.revision == UNRESOLVED for source in sources
        )


def needs_of(grid: Grid, experiments: Iterable[Experiment]) -> Needs:
    """The needs of the experiments: all models of the grid, since their tokenizers count the tokens
    of pairs, and what the experiments' steps use besides."""
    steps = walk(target for arm in arms_of(experiments) for target in arm.targets)
    policies = (*grid.weak, grid.student, *grid.students, *grid.families, *grid.others)
    golds = (
        (model, gold.form)
        for step in steps
        for gold in _values(step, RewardModel)
        if (model := _pretrained(gold.model))
    )
    return Needs(
        models=_once(model_of(policy) for policy in policies),
        writers=_once(
            model
            for step in steps
            if isinstance(step, Generate) and (model := base_model(step.policy))
        ),
        golds=tuple(
            (model, form) for model, form in dict.fromkeys(golds) if model.label not in FAMILY
        ),
        embeddings=_once(step.model for step in steps if isinstance(step, Similarity)),
        sources=tuple(
            dict.fromkeys(
                step.source
                for step in steps
                if isinstance(step, Pairs) and not isinstance(step.source, WorldSource)
            )
        ),
    )


def named(source: Source) -> str:
    """What the user gave for a source."""
    match source:
        case HubSource(dataset=dataset, folder=folder):
            return dataset or folder
        case FileSource(path=path):
            return path
        case FilesSource(files=files):
            return ", ".join(file.path for file in files)
        case _:
            return source.name


def _once(models: Iterable[Model]) -> tuple[Model, ...]:
    return tuple(dict.fromkeys(model for model in models if model.label not in FAMILY))


def _pretrained(policy: Model | Step) -> Model | None:
    match policy:
        case Model():
            return policy
        case Converted() | Dequantized():
            return policy.model
        case _:
            return None


def _values(value: Any, kind: type[Any]) -> Iterator[Any]:
    """The values of a kind in the fields of a step, but not in the steps that it reads."""
    for _, item in identity_fields(value):
        yield from _within(item, kind)


def _within(value: Any, kind: type[Any]) -> Iterator[Any]:
    if isinstance(value, kind):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _within(item, kind)
    elif is_dataclass(value) and not isinstance(value, type | Step):
        yield from _values(value, kind)
