"""What a run of ``label`` says of its teacher."""

import io

import pytest
from rich.console import Console

from weakteach.run.labeling import report_agreement, report_share
from weakteach.statistics.estimate import wilson_interval

WORSE = ": worse than chance: are the choices inverted?"
CHANCE = ": not distinguishable from chance, do not use these labels"


def printed(tell, *arguments):
    console = Console(file=io.StringIO(), width=300)
    tell(console, *arguments)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("agreed", "ending"),
    [(20, WORSE), (39, WORSE), (40, CHANCE), (50, CHANCE), (60, CHANCE), (61, ""), (80, "")],
)
def test_a_share_is_judged_by_its_interval(agreed, ending):
    text = printed(report_share, "Accuracy", {"agreed": agreed, "compared": 100})
    low, high = wilson_interval(agreed, 100)
    assert text == (
        f"Accuracy: {agreed}.0% (95 % interval {low:.1%} to {high:.1%}, 100 pairs){ending}\n"
    )
    assert (ending == WORSE) == (high < 0.5)
    assert (ending == "") == (low > 0.5)


def test_pairs_that_the_teacher_has_seen_are_counted_and_left_out():
    facts = {"same_pair": 3, "same_prompt": 2, "agreed": 0, "compared": 0}
    assert printed(report_agreement, "many.jsonl", facts) == (
        "many.jsonl: 3 are pairs that the teacher learned from, 2 have a prompt that it learned "
        "from: labeled, but left out of the agreement\n"
    )
    facts = {"same_pair": 0, "same_prompt": 0, "agreed": 10, "compared": 100}
    assert printed(report_agreement, "many.jsonl", facts).endswith(f"{WORSE}\n")
