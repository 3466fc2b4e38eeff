"""The roles of students: what each learned from."""

from fractions import Fraction

# What a student (or the teacher itself) learned from, in the order in which tables show it, and
# how figures call it.
ROLES = {
    "base": "base, not aligned",
    "sft": "human labels, SFT only",
    "human": "human labels",
    "human_all": "human labels of all pairs",
    "human_few": "human labels of the labeled part, as many updates",
    "gold": "gold labels",
    "prompted": "labels of a prompted model",
    "random": "human labels with random errors",
    "random_matched": "random errors, matched pairs only",
    "random_mismatched": "random errors, mismatched pairs only",
    "weak": "weak labels",
    "matched": "weak labels, matched pairs only",
    "mismatched": "weak labels, mismatched pairs only",
    "confident": "weak labels, the half with the larger margins",
    "teacher": "the teacher itself",
}
# Roles whose labels come from the teacher, or follow its errors.
OF_THE_TEACHER = (
    "random", "random_matched", "random_mismatched", "weak", "matched", "mismatched", "confident",
    "teacher",
)  # fmt: skip

# What every experiment compares at its main point.
CONTROLS = ("base", "sft", "human", "human_all", "human_few", "gold", "random", "weak")
HALF = Fraction(1, 2)
