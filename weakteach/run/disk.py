"""The disk that a study takes: what it writes to the storage, and to each host."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.filesize import decimal

from weakteach.artifacts.step import Step, walk
from weakteach.models.memory import ADAM, DTYPE_BYTES, FLOAT32, Shape
from weakteach.models.size import shape_for
from weakteach.models.spec import Model
from weakteach.run.plan import model_of
from weakteach.steps.data import Converted, Dequantized, Pretrained
from weakteach.steps.training import Dpo, RewardHead, Sft, rank_of
from weakteach.study.measures import Arm

# How many checkpoints of one training are kept at a time.
CHECKPOINTS = 2


@dataclass(frozen=True)
class Disk:
    """Bytes that steps write to the storage: all ``models`` (texts are small), the models among
    them that can be dropped (``bulk``), the most bytes of such models at a time if they are dropped
    as arms end (``bulk_at_once``), and the kept ``checkpoints`` of the largest training."""

    models: float
    bulk: float
    bulk_at_once: float
    checkpoints: float

    def needed(self, drop: bool) -> float:
        """The most bytes at a time. ``drop`` says whether models that can be dropped are dropped as
        arms end."""
        return self.models + self.checkpoints - (self.bulk - self.bulk_at_once if drop else 0)

    def __str__(self) -> str:
        told = f"About {decimal(round(self.needed(False)))} of models are written to the storage"
        if not self.bulk:
            return f"{told}."
        bulk, at_once = (decimal(round(size)) for size in (self.bulk, self.bulk_at_once))
        return f"{told}, {bulk} of them by SFT; of these {at_once} at a time with --drop-sft."


def disk_of(missing: Sequence[Step], arms: Sequence[Arm], at_once: int) -> Disk:
    """The disk of a plan's missing steps, if the arms start in their order and ``at_once`` of them
    run at a time."""
    sizes = {
        step.fingerprint: size for step, shape in _sized(missing) if (size := _saved(step, shape))
    }
    bulk = {
        s.fingerprint: sizes[s.fingerprint] for s in missing if s.bulk and s.fingerprint in sizes
    }
    return Disk(
        models=sum(sizes.values()),
        bulk=sum(bulk.values()),
        bulk_at_once=most_at_once(arms, bulk, at_once),
        checkpoints=max(
            (_checkpoints(step, shape) for step, shape in _sized(missing)), default=0.0
        ),
    )


def bytes_on_host(missing: Iterable[Step]) -> float:
    """The most bytes that steps keep on the host that computes them: all models of the hub, in 16
    bits, the kept checkpoints of the largest training, and two copies of the largest model that is
    written, one that is read and one that is being written."""
    steps = list(missing)
    models = dict.fromkeys(model for step in steps if (model := model_of(step)))
    of_hub = [one for one in models if not (one.is_untrained or one.content.startswith("sha256:"))]
    shapes = [shape for one in of_hub if (shape := shape_for(one))]
    sized = list(_sized(steps))
    return (
        sum(DTYPE_BYTES["bfloat16"] * shape.parameters for shape in shapes)
        + max((_checkpoints(*one) for one in sized), default=0.0)
        + 2 * max((_saved(*one) for one in sized), default=0.0)
    )


def most_at_once(arms: Sequence[Arm], sizes: Mapping[str, float], at_once: int) -> float:
    """The most bytes that steps take together at a time, where ``sizes`` are their bytes by
    fingerprint and ``at_once`` arms run at a time. A step's bytes are there from the first arm that
    has it until the last arm that computes a step which reads it is done."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    seen: set[str] = set()
    for number, arm in enumerate(arms):
        for step in walk(arm.targets):
            if step.fingerprint in seen:
                continue
            seen.add(step.fingerprint)
            first[step.fingerprint] = last[step.fingerprint] = number
            for read in step.read_in_bulk:
                last[read.fingerprint] = number
    return max(
        (
            sum(
                size
                for of, size in sizes.items()
                if first[of] < number + at_once and last[of] >= number
            )
            for number in range(len(arms))
        ),
        default=0.0,
    )


def _sized(steps: Iterable[Step]) -> Iterator[tuple[Step, Shape]]:
    """Yield the steps that write a model of known shape, and that shape."""
    shapes: dict[Model, Shape | None] = {}
    for step in steps:
        match step:
            case Sft() | Dpo() | RewardHead() | Pretrained():
                model = model_of(step)
            case Converted() | Dequantized():
                model = step.model
            case _:
                continue
        if model is None:
            continue
        if model not in shapes:
            shapes[model] = shape_for(model)
        if shape := shapes[model]:
            yield step, shape


def _trained(step: Sft | Dpo | RewardHead, shape: Shape) -> float:
    rank = rank_of(step)
    return shape.adapter_parameters(rank) if rank else shape.parameters


def _saved(step: Step, shape: Shape) -> float:
    match step:
        case RewardHead(saved=saved):  # adapters are merged into it
            return DTYPE_BYTES[saved] * shape.parameters
        case Sft(saved=saved) | Dpo(saved=saved):
            return DTYPE_BYTES[saved] * _trained(step, shape)
        case _:
            return FLOAT32 * shape.parameters


def _checkpoints(step: Step, shape: Shape) -> float:
    if not isinstance(step, Sft | Dpo | RewardHead):
        return 0.0
    return CHECKPOINTS * (FLOAT32 + ADAM) * _trained(step, shape)
