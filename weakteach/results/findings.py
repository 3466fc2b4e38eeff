"""What a study found, ready to be shown: numbers with their intervals, no artifacts, no steps.

A report draws these values and computes nothing. Texts in them may come from the data and are
untrusted; whoever shows them escapes them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from weakteach.statistics.estimate import CONFIDENCE, Estimate

# Ids of experiments that are numbered: E1 to E18 are the publication's, C1 to C5 its successor's,
# and R5 to R12 are in neither.
NUMBERED = re.compile(r"[ECR]\d+")
# What a cell of a table may hold; an estimate is shown with its interval, None as a dash.
Value = str | int | float | Estimate | None

# Verdicts of claims and comparisons that are decided.
DECIDED = ("supported", "contradicted", "better", "worse")
# Verdicts of answers that are about no claim or comparison.
TOLD, FAILED = "told", "failed"
# The heading of differences to students of human labels.
MINUS_HUMAN = "minus human"


@dataclass(frozen=True)
class Mark:
    """One mean of a figure: its place on the x axis, its interval, and the value of each seed."""

    x: str
    estimate: Estimate
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Series:
    """The marks of one role (or annotator, gold, ...), in the order of the x axis."""

    name: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class MeansFigure:
    """A figure of means: one group of marks for each place on the x axis. ``reference`` is the
    height of a line named ``reference_name`` (0.5 for win rates). ``differences`` holds, under the
    same names and places, the difference of a mark to another mean, which is shown beside it."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    reference: float | None = None
    reference_name: str = "no difference"
    differences: tuple[Series, ...] = ()
    difference_label: str = ""


@dataclass(frozen=True)
class Scatter:
    """Points of two measurements of the same things; ``x`` and ``y`` are equally long."""

    title: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    caption: str


@dataclass(frozen=True)
class ReliabilityDiagram:
    """Accuracy against confidence, by bin: mean confidence, accuracy, number of pairs."""

    title: str
    bins: tuple[tuple[float, Estimate, int], ...]
    caption: str


@dataclass(frozen=True)
class Histogram:
    """Counts between neighboring ``edges`` (one more than counts) for each named group."""

    title: str
    x_label: str
    edges: tuple[float, ...]
    counts: Mapping[str, tuple[int, ...]]


Figure = MeansFigure | Scatter | ReliabilityDiagram | Histogram


@dataclass(frozen=True)
class TableOf:
    """A table with a caption that says what the numbers are."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Example:
    """A pair on which the teacher and the human differ. ``margin`` is the teacher's, for its own
    choice and so not below 0. ``gold_difference`` is the gold reward of the teacher's choice minus
    that of the human's choice, None where no gold is known."""

    prompt: str
    weak_choice: str
    human_choice: str
    margin: float
    gold_difference: float | None


@dataclass(frozen=True)
class ClaimRow:
    """A claim of the publication and what this study says of it. ``verdict`` is ``supported``,
    ``contradicted`` or ``not decided``; ``needed`` says how much would decide it. The ``primary``
    claims are one family, the other claims of each experiment another. The interval is a 95% one
    unless ``confidence`` says otherwise. ``round`` names the round of seeds that the claim was
    decided in, given up after or seen in last; it is empty in a study without rounds."""

    experiment: str
    sentence: str
    verdict: str
    measured: str
    estimate: Estimate | None
    p: float | None
    needed: str
    primary: bool = False
    confidence: float = CONFIDENCE
    round: str = ""


@dataclass(frozen=True)
class Answer:
    """What a study says, in a sentence or two. ``verdict`` is that of a claim, or it says of two
    groups of students that the first was ``better``, ``worse``, or ``not decided``. It is
    ``failed`` for the reason of a failure, and ``told`` for what is said of a gold before all else;
    these two belong to no ``experiment``, which is empty."""

    experiment: str
    verdict: str
    sentence: str


@dataclass(frozen=True)
class Section:
    """What a report shows of one experiment. ``pending`` counts the arms of which something is not
    measured."""

    id: str
    title: str
    question: str
    figures: tuple[Figure, ...]
    tables: tuple[TableOf, ...]
    published: TableOf | None
    claims: tuple[ClaimRow, ...]
    examples: tuple[Example, ...] = ()
    pending: int = 0

    @property
    def heading(self) -> str:
        """The title, after the id if that is a number such as E1."""
        return f"{self.id} {self.title}" if NUMBERED.fullmatch(self.id) else self.title


@dataclass(frozen=True)
class Ran:
    """What ran, as names and values: ``facts`` of the measures, ``settings`` of the steps, and
    ``versions`` of what computed them. ``data`` holds what is known of each source of pairs: its
    name as ``source``, and the counts ``rows``, ``pairs`` and ``quarantined``. ``device_seconds``
    is the time of all steps, whenever and by whichever study they were computed."""

    facts: tuple[tuple[str, str], ...]
    data: tuple[Mapping[str, int | str], ...]
    settings: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    device_seconds: float


@dataclass(frozen=True)
class Findings:
    """All that a report shows, ``answers`` first, besides the description of the study."""

    answers: tuple[Answer, ...]
    ran: Ran
    sections: tuple[Section, ...]
    claims: tuple[ClaimRow, ...]
    teachers: tuple[TableOf, ...]
    teacher_figures: tuple[Figure, ...]
    cost: TableOf
    failures: tuple[tuple[str, str, str], ...]
    arms_done: int
    arms_failed: int
    arms_pending: int
