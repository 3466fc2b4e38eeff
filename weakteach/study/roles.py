"""The roles of students: what each learned from."""

from fractions import Fraction
from typing import Literal, get_args

from weakteach.labeling.weights import Weighting

HALF = Fraction(1, 2)
# How a teacher learns: by SFT and then DPO, by DPO alone, or as a Bradley-Terry reward model.
TeacherKind = Literal["DPO", "DPO alone", "reward head"]
RETRAINED = "another seed"
TEACHERS: tuple[TeacherKind, ...] = get_args(TeacherKind)
# What a student (or the teacher itself) learned from, in the order in which tables show it, with
# the names that figures show.
ROLES = {
    "base": "base, not aligned",
    "sft": "human labels, SFT only",
    "human": "human labels",
    "human_all": "human labels of all pairs",
    "human_few": "human labels of the labeled part, as many updates",
    "few_long": "human labels of the labeled part, as long as all pairs",
    "few_stopped": "human labels of the labeled part, until held-out ones gain no more",
    "gold": "gold labels",
    "prompted": "labels of a prompted model",
    "random": "human labels with random errors",
    "random_matched": "random errors, matched pairs only",
    "random_mismatched": "random errors, mismatched pairs only",
    "weak": "weak labels",
    "matched": "weak labels, matched pairs only",
    "mismatched": "weak labels, mismatched pairs only",
    "confident": "weak labels, the half with the larger margins",
    "top_30": "weak labels, the 30 % with the largest margins",
    "top_40": "weak labels, the 40 % with the largest margins",
    "weighted": "weak labels, weighted by confidence",
    "weighted_C2": "weak labels, weighted by σ(margin)",
    "weighted_C3": "weak labels, weighted by the margin up to 1",
    "weighted_C4": "weak labels, weighted by a fifth of the margin up to 1",
    "soft": "weak labels, soft by calibrated confidence",
    "target": "weak labels, the teacher's margin as target",
    "ensemble": "labels by vote of all teachers, weighted by their agreement",
    "both": "human labels of the labeled part, weak labels of the others",
    "teacher": "the teacher itself",
}
# Weighted roles, and how they weigh.
WEIGHTINGS: dict[str, Weighting] = {
    "weighted": "C1", "weighted_C2": "C2", "weighted_C3": "C3", "weighted_C4": "C4",
}  # fmt: skip
# Roles that keep the labels with the largest margins, and their share.
TOP = {"confident": HALF, "top_30": Fraction(3, 10), "top_40": Fraction(2, 5)}
# Roles whose labels come from the teacher, or follow its errors.
OF_THE_TEACHER = (
    "random", "random_matched", "random_mismatched", "weak", "matched", "mismatched", *TOP,
    *WEIGHTINGS, "soft", "target", "ensemble", "both", "teacher",
)  # fmt: skip

# What tells whether weak labels help those who have human ones, and how many they are worth.
BESIDE_HUMAN = ("few_long", "both", "human_all")
# What a first look compares.
FIRST = ("base", "human", "weak", "few_long", "both")
# What every experiment compares at its main point.
CONTROLS = ("base", "sft", "human", "human_all", "human_few", "gold", "random", "weak")
