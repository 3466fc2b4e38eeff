"""The table of a study's results: one row per arm, role and number measured."""

from dataclasses import asdict
from typing import Any

import pyarrow as pa

from weakteach.artifacts.store import Store
from weakteach.results.outcomes import Outcomes
from weakteach.study.manifest import Manifest
from weakteach.study.measures import Measure


def _field(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    return pa.field(name, kind, metadata={"doc": doc})


RESULTS_SCHEMA = pa.schema(
    [
        _field("experiments", pa.string(), "Experiments that show the number, such as E1, E2"),
        _field("arm", pa.string(), "Name of the arm: its setting and seed"),
        _field("domain", pa.string(), "Where the pairs come from"),
        _field("weak", pa.string(), "Model that the arm's teacher starts from"),
        _field(
            "teacher",
            pa.string(),
            "Kind of teacher: DPO (implicit reward; DPO alone: without SFT) or reward head, and "
            "whether its training had another seed, or its labeled pairs were of another domain",
        ),
        _field("student", pa.string(), "Model that is aligned"),
        _field("fraction", pa.string(), "Labeled share of the training pairs, such as 1/16"),
        _field("beta", pa.string(), "Beta of the students' DPO"),
        _field("sft", pa.string(), "Whether students start DPO with or without SFT"),
        _field(
            "recipe",
            pa.string(),
            "What else of the students' DPO is not the preset's, such as lora.rank 16; or usual",
        ),
        _field("seed", pa.int64(), "Seed of the split, of training and of sampling"),
        _field(
            "role",
            pa.string(),
            "What the student learned from: base (nothing yet), sft (SFT alone on human labels), "
            "human, human_all, human_few, gold, prompted, random, weak, matched, mismatched, … "
            "(SFT and DPO on these labels), or teacher",
        ),
        _field(
            "measure",
            pa.string(),
            "What was measured: gold_reward (mean over test prompts), garbage (share of "
            "unreadable words), start_gold_reward (of the model that DPO started from), "
            "student_accuracy, gold_accuracy, agreement and teacher_accuracy (shares of pairs "
            "on which labels agree with humans), …_gold (with gold), gold_with_weak (share of "
            "mismatches on which gold sides with weak), chosen_gold, rejected_gold, win_rate, "
            "flips (share of verdicts that change with the order), longer (share of verdicts for "
            "the longer response), consistency, similarity, transfer (accuracy in a domain that "
            "the teacher has not learned), temperature, ece_claimed, ece_scaled (calibration "
            "errors before and after scaling), alike and kappa (with the main teacher)",
        ),
        _field("of", pa.string(), "The gold, judge or embedding that measured"),
        _field("value", pa.float64(), "The number; null while pending or failed"),
        _field("se", pa.float64(), "Its standard error over prompts or pairs, where known"),
        _field("n", pa.int64(), "Prompts or pairs that it was taken over"),
        _field("step", pa.string(), "Kind of the step that measured"),
        _field("fingerprint", pa.string(), "Its fingerprint, equal in rows that share it"),
        _field("status", pa.string(), "done, failed or pending"),
        _field("error", pa.string(), "Why it failed; null unless it did"),
    ]
)

Number = tuple[str, float | None, float | None, int | None]


def collect(store: Store, manifest: Manifest) -> pa.Table:
    """One row per number measured, from the artifacts that exist; see RESULTS_SCHEMA."""
    outcomes = Outcomes(store)
    experiments: dict[Measure, list[str]] = {}
    for part in manifest.experiments:
        for measure in part.measures:
            experiments.setdefault(measure, []).append(part.id)
    rows = [
        {"experiments": ", ".join(of), **row}
        for measure, of in experiments.items()
        for row in _rows(measure, outcomes, manifest.failures.get(measure.fingerprint))
    ]
    return pa.Table.from_pylist(rows, RESULTS_SCHEMA)


def _rows(measure: Measure, outcomes: Outcomes, error: str | None) -> list[dict[str, Any]]:
    if measure.kind in ("label_gap", "examples"):  # other views of a step that has its own rows
        return []
    facts = outcomes.facts(measure)
    common = {
        "arm": measure.arm,
        **asdict(measure.setting),
        "seed": measure.seed,
        "role": measure.role,
        "of": measure.of,
        "step": measure.step,
        "fingerprint": measure.fingerprint,
        "status": "failed" if error else "pending" if facts is None else "done",
        "error": error,
    }
    numbers = numbers_of(measure.kind, facts) if facts else [(measure.kind, None, None, None)]
    return [
        {**common, "measure": name, "value": value, "se": se, "n": n}
        for name, value, se, n in numbers
    ]


def numbers_of(kind: str, facts: dict[str, Any]) -> list[Number]:
    """The numbers that a measure gives: the name of each, its value, its standard error over
    prompts or pairs (None where not known), and how many prompts or pairs there are."""
    match kind:
        case "reward":
            garbage = facts.get("garbage")
            found: list[Number] = [("gold_reward", facts["mean"], facts["se"], facts["rows"])]
            return found + ([] if garbage is None else [("garbage", garbage, None, facts["rows"])])
        case "start_reward":
            return [("start_gold_reward", facts["mean"], facts["se"], facts["rows"])]
        case "accuracy":
            return [_of_pairs("student_accuracy", "agreed", facts, facts["compared"])]
        case "gold_accuracy":
            return [_of_pairs(kind, "agreed", facts, facts["compared"])]
        case "agreement" | "teacher_accuracy":
            return _agreement(kind, facts)
        case "label_gold":
            return [
                (f"{name}_gold", facts[name], None, facts["rows"])
                for name in ("chosen", "rejected")
            ]
        case "verdicts":
            decided = facts["wins"] + facts["ties"] + facts["losses"]
            won = facts["wins"] + facts["ties"] / 2
            return [
                _of_contests("win_rate", won, decided),
                _of_contests("flips", facts["flips"], facts["repeats_compared"]),
                ("longer", facts["longer"], None, facts["longer_compared"]),
            ]
        case "consistency":
            return [("consistency", facts["consistency"], None, facts["contests"])]
        case "similarity":
            return [("similarity", facts["mean"], None, facts["rows"])]
        case "transfer":
            return _agreement(kind, facts)
        case "ece_gain":
            names = ("temperature", "ece_claimed", "ece_scaled")
            return [(name, facts[name], None, facts["compared"]) for name in names]
        case "alike":
            compared = facts["compared"]
            alike = _of_pairs("alike", "alike", facts, compared)
            return [alike, ("kappa", facts["kappa"], facts.get("kappa_se"), compared)]
        case _:
            return []


def _agreement(kind: str, facts: dict[str, Any]) -> list[Number]:
    compared = facts["compared"]
    found = [_of_pairs(kind, "agreed", facts, compared)]
    if facts["weak_right"] is not None:
        found.append(_of_pairs(f"{kind}_gold", "weak_right", facts, compared))
        if kind == "agreement" and compared > facts["agreed"]:
            mismatches = compared - facts["agreed"]
            found.append(_of_pairs("gold_with_weak", "gold_with_weak", facts, mismatches))
    return found


def _of_pairs(name: str, fact: str, facts: dict[str, Any], n: int) -> Number:
    """The share of n pairs that a fact counts. Its standard error is not known where the step of an
    older version did not store it."""
    return name, facts[fact] / n if n else float("nan"), facts.get(f"{fact}_se"), n


def _of_contests(name: str, successes: float, n: int) -> Number:
    """A share of n contests, each of another prompt."""
    share = successes / n if n else float("nan")
    return name, share, (share * (1 - share) / n) ** 0.5 if n else None, n
