"""What is measured of the arms of a study: settings, measures, and the arms that have them."""

from dataclasses import dataclass, field
from typing import ClassVar

from weakteach.artifacts.step import Step
from weakteach.study.roles import ROLES
from weakteach.training.recipes import USUAL


@dataclass(frozen=True)
class Setting:
    """What the arms of all seeds at a point have in common, as reports print it. ``recipe`` names
    the values of the students' DPO recipe, other than beta, that differ from the data's recipe."""

    domain: str
    weak: str
    teacher: str
    student: str
    fraction: str
    beta: str
    sft: str
    recipe: str = USUAL

    def __str__(self) -> str:
        text = f"{self.domain} {self.weak} ({self.teacher}) {self.fraction} -> {self.student}"
        text = f"{text} beta {self.beta}{'' if self.sft == 'with SFT' else ' without SFT'}"
        return text if self.recipe == USUAL else f"{text} {self.recipe}"


@dataclass(frozen=True)
class Measure:
    """What is measured of one role of an arm, and the step that measures it.

    ``kind`` says what is measured (``reward``, ``verdicts``, ...), and ``of`` by which gold or
    judge where there may be several. ``step`` and ``fingerprint`` name the step's artifact.
    ``target`` is the step itself; it is None in a measure that was read from a manifest, and does
    not count when measures are compared.
    """

    # So that pydantic can read manifests, which never hold a step itself.
    __pydantic_config__: ClassVar[dict[str, bool]] = {"arbitrary_types_allowed": True}

    setting: Setting
    seed: int
    kind: str
    role: str
    of: str
    step: str
    fingerprint: str
    target: Step | None = field(default=None, compare=False, repr=False)

    @property
    def arm(self) -> str:
        """The name of the arm that the measure belongs to."""
        return f"{self.setting} seed {self.seed}"


@dataclass(frozen=True)
class Arm:
    """One trial: a point and what is measured there."""

    setting: Setting
    seed: int
    measures: tuple[Measure, ...]

    @property
    def name(self) -> str:
        return f"{self.setting} seed {self.seed}"

    @property
    def targets(self) -> tuple[Step, ...]:
        steps = (measure.target for measure in self.measures)
        return tuple(dict.fromkeys(step for step in steps if step is not None))

    @property
    def roles(self) -> tuple[str, ...]:
        found = {measure.role for measure in self.measures}
        return tuple(role for role in ROLES if role in found)
