"""From a study's manifest and artifacts to its findings."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from weakteach.artifacts.store import Store
from weakteach.results.answers import (
    OUTCOMES,
    claim_answers,
    contrast_answers,
    contrasts,
    decided_first,
    failure_answers,
)
from weakteach.results.cells import Cell, cells_of, human_of, minus_human
from weakteach.results.deciding import claim_rows
from weakteach.results.findings import (
    MINUS_HUMAN,
    ClaimRow,
    Figure,
    Findings,
    Mark,
    MeansFigure,
    Scatter,
    Section,
    Series,
    TableOf,
    Value,
)
from weakteach.results.golds import cut_answers, gold_answers
from weakteach.results.gra import gra_table
from weakteach.results.outcomes import Outcomes
from weakteach.results.published import published_table
from weakteach.results.ran import Records, records_of, what_ran
from weakteach.results.rounds import asked_of, questions_of, standings_of
from weakteach.results.teachers import (
    examples,
    label_tables,
    scaling_table,
    teacher_figures,
    teacher_table,
)
from weakteach.results.worth import worth_table
from weakteach.statistics.crossed import holm, r_squared
from weakteach.statistics.estimate import Estimate
from weakteach.statistics.joined import LEAST_SHARE, Missing, aligned
from weakteach.statistics.rounds import Standing
from weakteach.study.experiment import Experiment
from weakteach.study.manifest import Manifest
from weakteach.study.roles import ROLES

AXES = {
    "student": "student",
    "fraction": "share of the training pairs with human labels",
    "supervisor": "who labels the pairs that students learn from",
    "labels": "what the student learned from",
    "beta": "beta of the students' DPO",
    "sft": "start of DPO",
    "recipe": "recipe of the students' DPO",
    "domain": "domain of the pairs",
}
# Short names of the same axes, for the headings of tables.
PLACES = {
    "student": "student",
    "fraction": "labeled",
    "supervisor": "labels of",
    "labels": "learned from",
    "beta": "beta",
    "sft": "start",
    "recipe": "recipe",
    "domain": "domain",
}
# Names of measures, in figures and as headings, and the value that means "no difference".
KINDS = {
    "reward": ("gold reward of the student", "gold reward", None),
    "accuracy": ("accuracy of the student on held-out human choices", "accuracy", 0.5),
    "verdicts": ("win rate over students of human labels", "win rate", 0.5),
    "consistency": ("share of the commonest verdict", "consistency", None),
    "similarity": ("similarity to the chosen response", "similarity", None),
    "teacher_accuracy": ("accuracy of the teacher on held-out human choices", "accuracy", 0.5),
    "transfer": ("accuracy in a domain that the teacher has not learned", "accuracy", 0.5),
    "ece_gain": ("calibration error gained by temperature scaling", "ECE gained", 0.0),
    "alike": ("held-out pairs labeled as the main teacher labels them", "labeled alike", 0.5),
}
# Kinds that are about teachers: shown if there are no students, else left to the teachers' table.
OF_TEACHERS = ("transfer", "ece_gain", "alike", "teacher_accuracy")
OF_PAIRS = ("accuracy", "consistency", *OF_TEACHERS)


def analyze(store: Store, manifest: Manifest) -> Findings:
    """The findings from the artifacts that exist; all else is pending or failed."""
    outcomes = Outcomes(store)
    of_claims, of_contrasts = _in_rounds(manifest, outcomes)
    claims = claim_rows(manifest.experiments, outcomes, manifest.info.sizes, of_claims)
    price = manifest.info.label_price
    sections = tuple(_section(one, outcomes, claims, price) for one in manifest.experiments)
    status = arm_status(store, manifest)
    counts = {name: list(status.values()).count(name) for name in ("done", "failed", "pending")}
    records = records_of(store, manifest)
    golds = gold_answers(manifest.measures, outcomes) + cut_answers(records)
    primary = claim_answers(claim for claim in claims if claim.primary)
    others = claim_answers(claim for claim in claims if not claim.primary)
    claimed = {one.experiment for one in asked_of(manifest.experiments)}
    for one in manifest.experiments:
        if one.id not in claimed:
            cells = cells_of(one, outcomes, OUTCOMES)
            compared = contrasts(cells, manifest.info.sizes)
            others += contrast_answers(one.id, compared, of_contrasts.get(one.id))
    taught = [m for m in manifest.measures if m.kind in ("agreement", "teacher_accuracy")]
    failures = _failures(manifest)
    return Findings(
        answers=(
            *golds,
            *decided_first(primary),
            *decided_first(others),
            *failure_answers(failures),
        ),
        ran=what_ran(manifest, records),
        sections=sections,
        claims=tuple(claims),
        teachers=teacher_table(taught, outcomes),
        teacher_figures=teacher_figures(taught, outcomes),
        cost=_cost(manifest, records),
        failures=failures,
        arms_done=counts["done"],
        arms_failed=counts["failed"],
        arms_pending=counts["pending"],
    )


def _in_rounds(
    manifest: Manifest, outcomes: Outcomes
) -> tuple[dict[str, Standing] | None, dict[str, list[Standing]]]:
    """Where a study in rounds stands: the standings of claims by their ids (None without rounds),
    and those of comparisons by experiment, for experiments that ask no claim."""
    info = manifest.info
    if not info.rounds:
        return None, {}
    asked = questions_of(manifest.experiments, info.sizes)
    found = standings_of(asked, manifest.experiments, outcomes, info.sizes, info.rounds)
    claims: dict[str, Standing] = {}
    compared: dict[str, list[Standing]] = {}
    for question, standing in zip(asked, found, strict=True):
        if question.claim:
            claims[question.claim] = standing
        else:
            compared.setdefault(question.experiment, []).append(standing)
    return claims, compared


def arm_status(store: Store, manifest: Manifest) -> dict[str, str]:
    """The status of each arm by its name: ``done``, ``failed`` or ``pending``."""
    outcomes = Outcomes(store)
    found: dict[str, set[str]] = {}
    for measure in manifest.measures:
        failed = measure.fingerprint in manifest.failures
        state = "failed" if failed else "done" if outcomes.facts(measure) else "pending"
        found.setdefault(measure.arm, set()).add(state)
    order = ("failed", "pending", "done")
    return {arm: next(s for s in order if s in states) for arm, states in found.items()}


def _section(
    experiment: Experiment,
    outcomes: Outcomes,
    claims: Sequence[ClaimRow],
    label_price: float | None,
) -> Section:
    kinds = _kinds(experiment)
    cells = cells_of(experiment, outcomes, kinds)
    figures: list[Figure] = []
    tables: list[TableOf] = []
    for kind in kinds:
        of_kind = [cell for cell in cells if cell.kind == kind]
        if any(cell.seeds for cell in of_kind):
            figures.append(comparison(experiment, kind, of_kind))
            tables.append(table_of(experiment, kind, of_kind))
    if worth := worth_table(experiment, cells, outcomes, label_price):
        tables.append(worth)
    if scaling := scaling_table(experiment, outcomes):
        tables.append(scaling)
    figures += _scatters(cells)
    of_labels = label_tables(experiment, outcomes)
    if gra := gra_table(experiment, outcomes, PLACES[experiment.axis]):
        of_labels.append(gra)
    return Section(
        id=experiment.id,
        title=experiment.title,
        question=experiment.question,
        figures=tuple(figures),
        tables=(*tables, *of_labels),
        published=published_table(experiment.id, cells, of_labels),
        claims=tuple(claim for claim in claims if claim.experiment == experiment.id),
        examples=examples(experiment, outcomes),
        pending=len({one.arm for one in experiment.measures if not outcomes.facts(one)}),
    )


def _kinds(experiment: Experiment) -> tuple[str, ...]:
    """The kinds of measures that figures of the experiment show."""
    measured = {measure.kind for measure in experiment.measures}
    of_students = tuple(kind for kind in KINDS if kind not in OF_TEACHERS)
    return of_students if measured.intersection(of_students) else OF_TEACHERS


def comparison(experiment: Experiment, kind: str, cells: Sequence[Cell]) -> MeansFigure:
    label, _, reference = KINDS[kind]
    marks: dict[str, list[Mark]] = {}
    differences: dict[str, list[Mark]] = {}
    for cell in cells:
        if (value := cell.estimate) is not None:
            marks.setdefault(cell.series, []).append(Mark(cell.x, value, cell.seed_means))
        if isinstance(difference := minus_human(cell, cells), Estimate):
            differences.setdefault(cell.series, []).append(Mark(cell.x, difference))
    return MeansFigure(
        title=f"{experiment.title}: {label}",
        x_label=AXES[experiment.axis],
        y_label=label,
        series=tuple(Series(name, tuple(of)) for name, of in marks.items()),
        reference=reference,
        differences=tuple(Series(name, tuple(of)) for name, of in differences.items()),
        difference_label=f"{KINDS[kind][1]} minus that of human labels",
    )


def table_of(experiment: Experiment, kind: str, cells: Sequence[Cell]) -> TableOf:
    """Means, and differences to human labels with p-values adjusted within the table, those to come
    included, or why there is none. The last column says how many prompts a mean is of. A difference
    says so itself if it is of fewer prompts than there are."""
    shown = [cell for cell in cells if cell.seeds]
    several = len({cell.series for cell in shown}) > 1
    differences = [minus_human(cell, shown) for cell in shown]
    tested = [one for one in differences if isinstance(one, Estimate)]
    asked = sum(cell.role != "human" and human_of(cell, cells) is not None for cell in cells)
    adjusted = iter(holm([one.p for one in tested], asked).tolist())
    compared = (MINUS_HUMAN, "p (Holm)") if any(differences) else ()
    rows: list[tuple[Value, ...]] = []
    for cell, one in zip(shown, differences, strict=True):
        p = next(adjusted) if isinstance(one, Estimate) else None
        difference = one.reason if isinstance(one, Missing) else one
        names = (cell.x, cell.series) if several else (cell.x,)
        value = cell.estimate and replace(cell.estimate, left_out=0)
        rows.append((*names, value, *((difference, p) if compared else ()), _size(cell, one)))
    unit = "pairs" if kind in OF_PAIRS else "prompts"
    return TableOf(
        title=KINDS[kind][0].capitalize(),
        columns=(
            PLACES[experiment.axis],
            *(("students of",) if several else ()),
            KINDS[kind][1],
            *compared,
            f"seeds, {unit}",
        ),
        rows=tuple(rows),
        note="Means with 95% intervals for new seeds and new prompts; differences are paired over "
        "both, as far as both cells have them. With one seed an interval holds for new prompts "
        f"alone. Prompts that not all seeds, or not both cells, have an outcome of are left out, "
        f"as long as {LEAST_SHARE:.0%} stay.",
    )


def _size(cell: Cell, difference: Estimate | Missing | None) -> str:
    """How many seeds, and how many prompts or pairs, the estimate is of, or why there is none. If
    the difference is of fewer seeds, their number is added."""
    outcome = cell.outcome
    if isinstance(outcome, Missing):
        return f"{len(cell.seeds)}: {outcome.reason}"
    of = f" of {len(outcome.asked)}" if outcome.left_out else ""
    both = ""
    if isinstance(difference, Estimate) and difference.seeds < len(outcome.seeds):
        both = f" ({difference.seeds} in both)"
    return f"{len(outcome.seeds)}{both}, {len(outcome.ids)}{of}"


def _scatters(cells: Sequence[Cell]) -> list[Scatter]:
    """Similarities of two policies' responses, prompt by prompt, means over seeds."""
    found = {cell.role: cell.outcome for cell in cells if cell.kind == "similarity"}
    made = []
    for other, name in (("human", "student of human labels"), ("teacher", "the teacher")):
        if "weak" not in found or other not in found:
            continue
        both = aligned([found[other], found["weak"]])
        if isinstance(both, Missing):
            continue
        x, y = (one.matrix.mean(axis=0) for one in both)
        if min(np.ptp(x), np.ptp(y)) > 0 and len(x) > 3:
            r2 = r_squared(x, y)
            left_out = f"; {both[0].left_out} left out" if both[0].left_out else ""
            made.append(
                Scatter(
                    title=f"Similarity to the chosen response: student of weak labels and {name}",
                    x_label=name,
                    y_label="student of weak labels",
                    x=tuple(x.tolist()),
                    y=tuple(y.tolist()),
                    caption=f"R² {r2.value:.2f}, 95% interval {r2.low:.2f} to {r2.high:.2f}, "
                    f"{len(x)} prompts{left_out}",
                )
            )
    return made


def _cost(manifest: Manifest, records: Records) -> TableOf:
    """Device time of all steps by kind, whenever they ran."""
    rows: list[tuple[Value, ...]] = []
    total, count = 0.0, 0
    for kind in dict.fromkeys(kind for kind, _ in manifest.steps):
        mine = [fingerprint for name, fingerprint in manifest.steps if name == kind]
        there = [records[kind, one] for one in mine if (kind, one) in records]
        hours = sum(record["device_seconds"] for record in there) / 3600
        rows.append((kind, len(mine), len(there), round(hours, 3)))
        total, count = total + hours, count + len(there)
    rows.append(("all", len(manifest.steps), count, round(total, 3)))
    return TableOf(
        "Cost",
        ("step", "unique", "exist", "device-hours"),
        tuple(rows),
        "Device time of all "
        "steps that the study is made of, whenever and by whichever study they were computed.",
    )


def _failures(manifest: Manifest) -> tuple[tuple[str, str, str], ...]:
    """Failures, each as the arm, what its students learned from, and the reason. All that failed
    for the same reason in an arm is one failure."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for measure in manifest.measures:
        if why := manifest.failures.get(measure.fingerprint):
            found.setdefault((measure.arm, why), {})[ROLES[measure.role]] = None
    return tuple((arm, ", ".join(roles), why) for (arm, why), roles in found.items())
