"""The manifest of a study, kept beside its results: from it and the store a report can be made
again, without the script that ran the study."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from weakteach.artifacts.errors import StorageError
from weakteach.artifacts.record import stored_name
from weakteach.artifacts.step import walk
from weakteach.artifacts.store import Store
from weakteach.statistics.schedule import rounds_of
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment
from weakteach.study.measures import Measure
from weakteach.study.policies import sizes_of

MANIFEST = "study.json"


@dataclass(frozen=True)
class StudyInfo:
    """What a report says of a study, apart from its findings and from what its steps tell.

    ``sizes`` holds the parameters of each model's layers, by the model's name, where they are
    known. ``rounds`` holds the seeds of all rounds in their order where the study is decided in
    rounds (see ``statistics/rounds.py``). ``label_price`` is that of a human label, if it is known.
    ``started`` is in seconds since the epoch, and ``seconds`` is the time that this run took. A
    field that is added needs a default, so that the manifests of earlier studies can still be read.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"allow_inf_nan": False}

    name: str
    title: str
    preset: str
    command: str
    storage: str
    started: float
    seconds: float = 0.0
    steps_total: int = 0
    steps_existing_at_start: int = 0
    steps_computed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    rounds: tuple[int, ...] = ()
    label_price: float | None = None


@dataclass(frozen=True)
class Manifest:
    """A study: its description, its experiments, the kind and fingerprint of each different step,
    and the reasons of failed steps by fingerprint. Its measures hold no steps, only their names."""

    info: StudyInfo
    experiments: tuple[Experiment, ...]
    steps: tuple[tuple[str, str], ...]
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Every measure once, in the order of the experiments."""
        return tuple(dict.fromkeys(m for one in self.experiments for m in one.measures))


@dataclass(frozen=True)
class _StoredExperiment:
    """An experiment as JSON has it: its measures stand as places in the list of all measures."""

    id: str
    title: str
    question: str
    axis: str
    measures: tuple[NonNegativeInt, ...]


@dataclass(frozen=True)
class _StoredManifest:
    """A manifest as JSON has it."""

    info: StudyInfo
    measures: tuple[Measure, ...]
    experiments: tuple[_StoredExperiment, ...]
    steps: tuple[tuple[str, str], ...]
    failures: dict[str, str]


_STORED = TypeAdapter(_StoredManifest)


def describe(
    name: str,
    title: str,
    grid: Grid,
    store: Store,
    command: str,
    rounds: tuple[int, ...] = (),
    label_price: float | None = None,
) -> StudyInfo:
    """The StudyInfo of a study over this grid that starts at the time of the call."""
    return StudyInfo(
        name=name,
        title=title,
        preset=grid.preset.name,
        command=command,
        storage=store.url,
        started=time.time(),
        sizes=sizes_of(grid.models),
        rounds=rounds,
        label_price=label_price,
    )


def make_manifest(info: StudyInfo, experiments: Iterable[Experiment]) -> Manifest:
    """The manifest of a study of these experiments, before anything has failed."""
    experiments = tuple(experiments)
    targets = (measure.target for one in experiments for measure in one.measures)
    steps = walk(target for target in targets if target is not None)
    return Manifest(
        info,
        tuple(
            replace(one, measures=tuple(replace(m, target=None) for m in one.measures))
            for one in experiments
        ),
        tuple((type(step).__name__, step.fingerprint) for step in steps),
    )


def study_folder(store: Store, study: str) -> str:
    """Where a study's results lie, on the store's file system. Raises StorageError for a name that
    would lead elsewhere."""
    return f"{store.root}/studies/{stored_name(study)}"


def manifest_text(manifest: Manifest) -> str:
    """The manifest as JSON, from which ``read_manifest`` makes an equal one."""
    measures = manifest.measures
    number = {measure: place for place, measure in enumerate(measures)}
    whole = {
        "info": asdict(manifest.info),
        "measures": [_without_target(measure) for measure in measures],
        "experiments": [
            {**asdict(replace(one, measures=())), "measures": [number[m] for m in one.measures]}
            for one in manifest.experiments
        ],
        "steps": manifest.steps,
        "failures": dict(manifest.failures),
    }
    return json.dumps(whole, indent=1)


def _without_target(measure: Measure) -> dict[str, Any]:
    named = asdict(replace(measure, target=None))
    del named["target"]
    return named


def read_manifest(store: Store, study: str) -> Manifest:
    """The manifest of a study. Missing fields take their defaults, and unknown ones are left out,
    so that manifests of other versions can be read.

    Raises StorageError if there is no study of that name, or if the file there is no manifest, or
    one of another study.
    """
    file_name = f"{study_folder(store, study)}/{MANIFEST}"
    try:
        with store.filesystem.open_input_file(file_name) as file:
            found = _STORED.validate_json(file.read())
    except FileNotFoundError as error:
        raise StorageError(f"There is no study {study} in {store.url}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise _damaged(file_name, f"{place}: {first['msg']}") from error
    measures = found.measures
    beyond = {n for one in found.experiments for n in one.measures if n >= len(measures)}
    if beyond:
        raise _damaged(file_name, f"there is no measure number {min(beyond)}")
    if found.info.rounds:
        try:
            rounds_of(len(found.info.rounds))
        except ValueError as error:
            raise _damaged(file_name, str(error)) from error
    if found.info.name != study:
        raise StorageError(f"{file_name} is of another study, {found.info.name!a:.80}")
    experiments = tuple(
        Experiment(
            of.id, of.title, of.question, of.axis, tuple(map(measures.__getitem__, of.measures))
        )
        for of in found.experiments
    )
    return Manifest(found.info, experiments, found.steps, found.failures)


def _damaged(file_name: str, why: str) -> StorageError:
    return StorageError(
        f"{file_name} is damaged ({why}): run the study again, which computes no step anew"
    )
