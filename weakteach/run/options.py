"""The options that several commands share, each declared once.

An option is a field of a frozen dataclass, with its docstring as help: those of a grid are declared
in ``study/grids.py``, those of execution in ``models/resources.py``, all others here.
"""

from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, get_type_hints

from cyclopts import Group, Parameter, validators
from docstring_parser import parse_from_object

from weakteach.artifacts.errors import UserError
from weakteach.labeling.weights import Weighting
from weakteach.models.resources import Resources
from weakteach.models.spec import Dtype
from weakteach.run.deciding import Deciding
from weakteach.study.grids import Choices, Endpoint
from weakteach.study.presets import LAPTOP, PRESETS, Preset

TrackerName = Literal["tensorboard", "mlflow", "wandb"]

PresetName = Annotated[str, Parameter(choices=tuple(PRESETS))]
Storage = Annotated[str, Parameter(env_var="WEAKTEACH_STORAGE")]
Verbose = Annotated[bool, Parameter(alias="-v")]
Address = str | None
DEFAULT_STORAGE = "runs"
DEFAULT_TEACHER = "opt-230k"


def _shares_text(shares: tuple[Fraction, ...]) -> str:
    """Shares as they are given on the command line."""
    return ",".join(map(str, shares))


def _group(name: str, place: int) -> Parameter:
    """The parameter that flattens a dataclass into options which stand together in ``--help``."""
    return Parameter(name="*", group=Group(name, sort_key=place))


@dataclass(frozen=True)
class Where:
    """What a study is computed with, and where its results lie."""

    preset: PresetName = "embedded"
    """Scale of the study: models, data and recipes."""
    storage: Storage = DEFAULT_STORAGE
    """Where artifacts and results go: a folder, s3://... or gs://.... What lies there is not
    computed again."""


@dataclass(frozen=True)
class LabelOptions:
    """What is labeled, and by whom."""

    labeled: tuple[str, ...]
    """Pairs with human choices, which teach the teacher: a file, several, a pattern, a folder, or
    a hub id with #config:split."""
    unlabeled: tuple[str, ...]
    """Pairs to label, named likewise."""
    out: Path
    """Folder for labels, preferences, verdict and quarantine."""
    columns: tuple[str, ...] = ()
    """Names for columns of both, such as prompt=question,chosen=better."""
    choice_values: tuple[str, ...] = ()
    """What stands for a choice of the first and of the second response, such as A,B."""
    teacher: str = DEFAULT_TEACHER
    """Embedded model, smollm2-135m, a folder, .gguf file or hub id."""
    preset: PresetName = LAPTOP.name
    """Whose recipes of teachers, and whose resources unless you give others."""
    storage: Storage = DEFAULT_STORAGE
    """Where artifacts lie: a folder or a URL. What lies there is not computed again."""
    seed: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0
    """Of the folds, of training and of all that is drawn."""
    max_tokens: Annotated[int, Parameter(validator=validators.Number(gte=8))] = 512
    """Longer pairs go to quarantine, and so do those that the teacher cannot read whole."""
    min_confidence: Annotated[float, Parameter(validator=validators.Number(gte=0, lt=1))] = 0.0
    """Labels of less confidence are left out of preferences.parquet."""
    as_text: bool = False
    """Write preferences.parquet as texts even where the input holds messages."""
    weights: Weighting = "C1"
    """Weight of a pair in preferences.parquet, by its margin d: C1 2*(sigmoid(d) - 1/2), C2
    sigmoid(d), C3 min(d, 1), C4 min(0.2*d, 1)."""
    ask_humans: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0
    """Write so many pairs, those whose human label is missed most, for humans to label."""
    overwrite: bool = False
    """Replace what another run left in the folder."""
    dtype: Dtype | None = None
    """Of computations with models, that of the preset without; weights are trained in float32."""


@dataclass(frozen=True)
class Judging:
    """How the teacher is judged, before it labels."""

    held_out: Annotated[float, Parameter(validator=validators.Number(gte=0.05, lte=0.5))] = 0.2
    """Share of labeled pairs that test a teacher of the others; all of them do so in turn, so 0.2
    makes five trainings."""
    rounds: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1
    """Times that all take their turn, each drawn anew: more of them narrow the interval a bit."""
    curve: Annotated[tuple[Fraction, ...], Parameter(show_default=_shares_text)] = (Fraction(1, 2),)
    """Shares of the labeled pairs for the learning curve, each as many trainings again; 0 for
    none."""
    other_seeds: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 1
    """Teachers that differ in their seed alone, each as many trainings again; they also tell
    --ask-humans where teachers differ."""
    rivals: tuple[str, ...] = ()
    """Other models to try as teachers on the same pairs."""
    elsewhere: tuple[str, ...] = ()
    """Pairs of another domain with human choices, on which the teacher is tested, too."""
    wanted_accuracy: Annotated[float, Parameter(validator=validators.Number(gt=0, lt=1))] = 0.7
    """Accuracy that the learning curve is asked for."""
    min_accuracy: Annotated[float, Parameter(validator=validators.Number(gt=0, lt=1))] = 0.5
    """The gate: unless the whole interval of its accuracy lies above, or that of its most confident
    labels does, no pair is labeled, and the exit code is 3."""
    no_gate: bool = False
    """Label in any case."""
    label_price: Annotated[float | None, Parameter(validator=validators.Number(gte=0))] = None
    """Of a human label, for the costs in the report."""

    def __post_init__(self) -> None:
        if not all(0 <= share < 1 for share in self.curve):
            raise UserError("--curve: a share lies between 0 and 1, such as 1/4,1/2")

    @property
    def shares(self) -> tuple[Fraction, ...]:
        return tuple(share for share in self.curve if share)


@dataclass(frozen=True)
class Cluster:
    """Where to run."""

    address: Address = None
    """Ray cluster to run on; without it (and RAY_ADDRESS), Ray starts here."""
    dashboard: bool = False
    """Show Ray's dashboard of a run on this machine, and print its URL."""
    cluster_file: Path | None = None
    """File of ray up or KubeRay that the cluster is made of: what its nodes can never hold is
    refused."""
    check: bool = False
    """Check that all is there that the run needs, and on a cluster that is named; start nothing."""


@dataclass(frozen=True)
class Running(Cluster):
    """How to run a sweep."""

    max_concurrent: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None
    """Arms that run at a time."""
    tracker: tuple[TrackerName, ...] = ()
    """Keep a run per arm there, too; several with commas."""
    drop_sft: bool = False
    """As arms end, delete the weights of SFT models that every step of this study which reads them
    is done with; what other studies or runs may read stays. Whatever needs one later computes it
    anew."""


@dataclass(frozen=True)
class Cost:
    """What a study may cost."""

    plan: bool = False
    """Say what would be computed and what it costs; run nothing."""
    prices: Path | None = None
    """Price table of node types (TOML), in place of the one shipped."""
    node_types: tuple[str, ...] = ()
    """Node types of the price table that you run on; all without it."""
    max_cost: Annotated[float | None, Parameter(validator=validators.Number(gte=0))] = None
    """Do not start if the planned cost on any of those is higher."""
    label_price: Annotated[float | None, Parameter(validator=validators.Number(gte=0))] = None
    """Of a human label: the report says in money, too, what weak labels are worth."""


@cache
def overrides(of: type[Any]) -> Any:
    """A type of dicts that hold those fields of a dataclass which a user gave. Each field is an
    option with the field's docstring as help."""
    said = {item.arg_name: item.description for item in parse_from_object(of).params}
    hints = get_type_hints(of, include_extras=True)
    options = {
        item.name: Annotated[hints[item.name], Parameter(help=said[item.name])]
        for item in fields(of)
    }
    return TypedDict(of.__name__, options, total=False)  # type: ignore[operator]


# As parameters of a command.
WhereOptions = Annotated[Where, _group("Study", 1)]
JudgingOptions = Annotated[Judging, _group("Verdict on the teacher", 2)]
GridOptions = Annotated[Choices, _group("Study", 1)]
EndpointOptions = Annotated[Endpoint, _group("Prompted models", 2)]
RunningOptions = Annotated[Running, _group("Execution", 3)]
ClusterOptions = Annotated[Cluster, _group("Execution", 3)]
DecidingOptions = Annotated[Deciding, _group("Rounds of seeds", 4)]
CostOptions = Annotated[Cost, _group("Plan and cost", 5)]


if TYPE_CHECKING:
    ExecutionOptions = dict[str, Any] | None
else:
    ExecutionOptions = Annotated[overrides(Resources), _group("Execution", 3)]


def resources_of(preset: Preset, given: dict[str, Any] | None) -> Resources:
    """The preset's resources, overridden by what the user gave. Raises UserError."""
    given = dict(given or {})
    if given.get("gpu_type") == "any":
        given["gpu_type"] = ""
    if "train_workers" in given:
        given.setdefault("train_workers_max", 0)
    if "label_actors" in given:
        given.setdefault("label_actors_max", 0)
    resources = replace(preset.resources, **given)
    if resources.gpu_type and not resources.gpus:
        raise UserError(
            f"--gpu-type: the preset {preset.name} runs without GPUs, so say with --gpus how many "
            "each worker takes"
        )
    return resources
