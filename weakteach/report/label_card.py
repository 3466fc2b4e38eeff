"""The card of weak labels, the ``README.md`` beside them, and the facts that their files hold."""

import re
from typing import Any

from weakteach import __version__
from weakteach.labeling.weights import Weighting
from weakteach.report.words import one_line
from weakteach.results.label_findings import LabelRun
from weakteach.statistics.estimate import Estimate

LONGEST = 500
FORMULAS: dict[Weighting, str] = {
    "C1": "2·(σ(Δ) - ½)",
    "C2": "σ(Δ)",
    "C3": "min(Δ, 1)",
    "C4": "min(0.2·Δ, 1)",
}
# Characters that Markdown or HTML would take for more than text.
SPECIAL = re.compile(r"([\\`*_{}\[\]<>|&~$])")


def about(run: LabelRun, teacher: str, weighting: Weighting) -> dict[str, Any]:
    """The facts that files of labels hold, as JSON values; ``teacher`` is its fingerprint."""
    facts = run.facts
    return {
        "made_by": f"weakteach {__version__}",
        "teacher": facts.teacher,
        "teacher_fingerprint": teacher,
        "labeled": run.labeled,
        "unlabeled": run.unlabeled,
        "accuracy": _interval(facts.accuracy),
        "agreement": _interval(run.seen.agreement) if run.seen and run.seen.agreement else None,
        "temperature": facts.temperature,
        "ece_claimed": facts.before.ece,
        "ece_calibrated": facts.after.ece,
        "ece_by_chance": facts.after.ece_by_chance,
        "brier_calibrated": facts.after.brier,
        "weighting": f"{weighting}: {FORMULAS[weighting]}",
        "advice": run.advice.sentence,
    }


def card(run: LabelRun, told: dict[str, Any], labels: int, preferences: int) -> str:
    """The card in Markdown; ``told`` holds the facts of ``about``."""
    facts = run.facts
    rows = {
        "Labels": f"of {labels:,} rows; {preferences:,} pairs in preferences.parquet",
        "Teacher": f"{run.facts.teacher}, SFT and DPO on the human choices of {run.labeled}",
        "Its fingerprint": told["teacher_fingerprint"],
        "Accuracy": f"{_percent(facts.accuracy)} on {facts.pairs:,} human choices, each judged by "
        "a teacher that did not see it",
        "Accuracy on the labeled data itself": f"{_percent(run.seen.agreement)}, human choices of "
        f"{run.seen.agreement.prompts:,} pairs that it did not see"
        if run.seen and run.seen.agreement
        else "not known: they have no human choices",
        "Calibration": f"temperature {facts.temperature:.3g}; calibration error (ECE) "
        f"{facts.before.ece:.3f} as claimed, {facts.after.ece:.3f} as probability "
        f"(about {facts.after.ece_by_chance:.3f} by chance alone)",
        "Weight": told["weighting"],
        "What to do": run.advice.sentence,
        "Made by": told["made_by"],
    }
    lines = [f"| {name} | {_plain(text)} |" for name, text in rows.items()]
    return "\n".join(
        [
            f"# Weak preference labels of {_plain(run.unlabeled)}",
            "",
            "A language model chose; no human did. Texts are those of the input, unchanged.",
            "",
            "| | |",
            "|---|---|",
            *lines,
            "",
            "`confidence` is what the teacher claims, 2·(σ(Δ) - ½) of its margin Δ; `probability` "
            "is how likely a human makes the same choice, σ(Δ/temperature); `weight` is for a "
            "weighted loss. Pairs, accuracy by margin and by source, and pairs to read are in "
            "`report.html`; all numbers in `verdict.json`.",
            "",
            "```python",
            "from datasets import load_dataset",
            'pairs = load_dataset("parquet", data_files="preferences.parquet", split="train")',
            "```",
            "",
            "TRL's `DPOTrainer` takes these pairs as they are. `RewardTrainer` would subtract "
            "`margin` in its loss, as a Bradley-Terry margin: unless you want that, give it "
            '`pairs.remove_columns("margin")`.',
            "",
        ]
    )


def _interval(share: Estimate) -> dict[str, float | int]:
    return {
        "value": share.value,
        "low": share.low,
        "high": share.high,
        "pairs": share.prompts,
    }


def _percent(share: Estimate) -> str:
    return f"{share.value:.1%} (95 % interval {share.low:.1%} to {share.high:.1%})"


def _plain(text: str) -> str:
    """The text on one line, escaped so that Markdown shows it unchanged."""
    return SPECIAL.sub(r"\\\1", one_line(text, LONGEST))
