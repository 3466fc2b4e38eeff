"""The space of studies: data with the golds and recipes that suit it, and all that may differ
between two arms."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from weakteach.evaluation.gold import Gold
from weakteach.steps.data import HeldOut, Policy
from weakteach.study.policies import name_of
from weakteach.study.presets import Recipes
from weakteach.study.roles import TeacherKind
from weakteach.training.recipes import DpoRecipe


@dataclass(frozen=True)
class Data:
    """Pairs cut for a study, the golds that score responses (the first is the main one), and the
    recipes that suit them. ``name`` is what reports call the domain."""

    name: str
    held_out: HeldOut
    golds: tuple[Gold, ...]
    teacher: Callable[[str], Recipes] = field(compare=False)
    student: Callable[[str], Recipes] = field(compare=False)

    @property
    def gold(self) -> Gold | None:
        return self.golds[0] if self.golds else None


@dataclass(frozen=True)
class Point:
    """All that may differ between two arms. ``dpo`` is the recipe of the students' DPO, None for
    that of the data. With ``sft`` False students are aligned from the base model, without SFT.
    ``teacher`` is the kind of teacher; ``retrained`` says that its training, and nothing else, has
    another seed."""

    data: Data
    weak: Policy
    student: Policy
    fraction: Fraction
    seed: int
    dpo: DpoRecipe | None = None
    sft: bool = True
    teacher: TeacherKind = "DPO"
    retrained: bool = False

    @property
    def usual_dpo(self) -> DpoRecipe:
        """The data's recipe of this student's DPO."""
        return self.data.student(name_of(self.student)).dpo

    def with_dpo(self, **changes: Any) -> "Point":
        """This point with another recipe of the students' DPO."""
        return replace(self, dpo=replace(self.dpo or self.usual_dpo, **changes))
