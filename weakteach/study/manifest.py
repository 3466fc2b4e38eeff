"""What a study is made of, as it is kept beside its results: a report is made again from this and
the store, without the script that ran the study."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from weakteach.artifacts.errors import StorageError
from weakteach.artifacts.record import stored_name
from weakteach.artifacts.step import walk
from weakteach.artifacts.store import Store
from weakteach.study.arms import Setting
from weakteach.study.experiments import Experiment

MANIFEST = "study.json"


@dataclass(frozen=True)
class StudyInfo:
    """What a report says of a study besides its findings.

    ``grid`` names what the study went over, with its values. ``data`` holds for each source what
    is known of it: ``source``, and the counts ``rows``, ``pairs`` and ``quarantined``. ``started``
    is in seconds since the epoch, ``seconds`` the time of this run, ``device_seconds`` that of all
    steps, whenever they ran.
    """

    name: str
    title: str
    preset: str
    command: str
    storage: str
    grid: tuple[tuple[str, str], ...]
    seeds: tuple[int, ...]
    steps_total: int
    steps_existing_at_start: int
    steps_computed: int
    started: float
    seconds: float
    device_seconds: float
    data: tuple[Mapping[str, int | str], ...]
    gold: str
    settings: tuple[tuple[str, str], ...]
    packages: Mapping[str, str]
    code: Mapping[str, str]


@dataclass(frozen=True)
class Measured:
    """A measure of an arm, its step by name: see ``arms.Measure``."""

    setting: Setting
    seed: int
    kind: str
    role: str
    of: str
    step: str
    fingerprint: str

    @property
    def arm(self) -> str:
        return f"{self.setting} seed {self.seed}"


@dataclass(frozen=True)
class Part:
    """An experiment of the study, and what it shows; see ``experiments.Experiment``."""

    id: str
    title: str
    question: str
    axis: str
    measures: tuple[Measured, ...]


@dataclass(frozen=True)
class Manifest:
    """A study: its description, experiments, kind and fingerprint of every unique step, and the
    reasons of failed steps by fingerprint."""

    info: StudyInfo
    parts: tuple[Part, ...]
    steps: tuple[tuple[str, str], ...]
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def measures(self) -> tuple[Measured, ...]:
        """Every measure once, in the order of the experiments."""
        return tuple(dict.fromkeys(m for part in self.parts for m in part.measures))


def make_manifest(info: StudyInfo, experiments: Iterable[Experiment]) -> Manifest:
    experiments = list(experiments)
    steps = walk(use.measure.step for experiment in experiments for use in experiment.uses)
    return Manifest(
        info,
        tuple(map(_part, experiments)),
        tuple((type(step).__name__, step.fingerprint) for step in steps),
    )


def _part(experiment: Experiment) -> Part:
    measures = (
        Measured(
            use.setting,
            use.seed,
            use.measure.kind,
            use.measure.role,
            use.measure.of,
            type(use.measure.step).__name__,
            use.measure.step.fingerprint,
        )
        for use in experiment.uses
    )
    found = tuple(dict.fromkeys(measures))
    return Part(experiment.id, experiment.title, experiment.question, experiment.axis, found)


def study_folder(store: Store, study: str) -> str:
    """Where a study's results lie, on the store's file system. Raises StorageError for a name that
    would lead elsewhere."""
    return f"{store.root}/studies/{stored_name(study)}"


def manifest_text(manifest: Manifest) -> str:
    """As JSON; measures stand once, experiments refer to them by number."""
    measures = manifest.measures
    number = {measure: place for place, measure in enumerate(measures)}
    parts = [
        {**_without_measures(part), "measures": [number[measure] for measure in part.measures]}
        for part in manifest.parts
    ]
    whole = {
        "info": asdict(manifest.info),
        "measures": [asdict(measure) for measure in measures],
        "experiments": parts,
        "steps": manifest.steps,
        "failures": dict(manifest.failures),
    }
    return json.dumps(whole, indent=1)


def _without_measures(part: Part) -> dict[str, object]:
    return asdict(replace(part, measures=()))


def read_manifest(store: Store, study: str) -> Manifest:
    """Raises StorageError if there is no study of that name, or what lies there is none."""
    file_name = f"{study_folder(store, study)}/{MANIFEST}"
    try:
        with store.filesystem.open_input_file(file_name) as file:
            found = _manifest(json.loads(file.read()))
    except FileNotFoundError as error:
        raise StorageError(f"There is no study {study} in {store.url}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(
            f"{file_name} is damaged ({type(error).__name__}: {error}): run the study again, which "
            "computes no step anew"
        ) from error
    if found.info.name != study:
        raise StorageError(f"{file_name} is of another study, {found.info.name!a:.80}")
    return found


def _manifest(stored: Any) -> Manifest:
    measures = [
        Measured(**{**measure, "setting": Setting(**measure["setting"])})
        for measure in stored["measures"]
    ]
    parts = [
        Part(**{**part, "measures": tuple(measures[number] for number in part["measures"])})
        for part in stored["experiments"]
    ]
    info = StudyInfo(**{name: _tuples(value) for name, value in stored["info"].items()})
    steps = tuple((kind, fingerprint) for kind, fingerprint in stored["steps"])
    return Manifest(info, tuple(parts), steps, stored["failures"])


def _tuples(value: Any) -> Any:
    """The tuples of a description, which are lists in JSON."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
