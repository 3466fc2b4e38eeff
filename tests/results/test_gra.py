"""Gold reward accuracy of students whose rewards before and after DPO are known."""

from dataclasses import replace

import pytest
from synthetic import Bed, experiment

from weakteach.results.analysis import analyze
from weakteach.study.manifest import Manifest, StudyInfo

PROMPTS = [f"q{n:02}" for n in range(20)]


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path)


def student(bed, role, seed, gained, tied=0, **setting):
    """A student that DPO made better at ``gained`` prompts and left alone at ``tied``."""
    after = {p: 1.0 if n < gained else 0.0 for n, p in enumerate(PROMPTS)}
    before = {p: 0.5 if n < 20 - tied else 0.0 for n, p in enumerate(PROMPTS)}
    start = bed.reward(role, seed, before, **setting)
    return [bed.reward(role, seed, after, **setting), replace(start, kind="start_reward")]


def section(bed, *measures):
    info = StudyInfo("s", "S", "embedded", "python s.py", "here", started=1.0)
    one = experiment("C3", "labels", *measures)
    return analyze(bed.store, Manifest(info, (one,), ())).sections[0]


def shown(found):
    """Ours beside what was published, and the table of GRA."""
    return [one for one in found.published.rows if one[0] == "ours" and "GRA" in one[1]], [
        one for one in found.tables if "GRA" in one.title
    ]


def test_it_is_the_share_of_prompts_at_which_dpo_gained(bed):
    measures = [
        one
        for seed in (0, 1)
        for one in (
            *student(bed, "human", seed, gained=12, tied=4),
            *student(bed, "weighted", seed, gained=14 + seed),
            bed.reward("base", seed, dict.fromkeys(PROMPTS, 0.0)),
        )
    ]
    ours, (gra,) = shown(section(bed, *measures))
    assert gra.columns == ("learned from", "GRA", "minus human", "seeds, prompts")
    human, weighted = gra.rows  # the base student learned nothing
    assert human[0] == "human labels"
    assert human[1].value == pytest.approx(12 / 20)
    assert human[2] is None
    assert weighted[1].value == pytest.approx(14.5 / 20)
    assert weighted[2].value == pytest.approx(2.5 / 20)
    assert weighted[3] == "2, 20"
    assert [(name, value.value) for _, name, value in ours] == [
        ("human labels: GRA", pytest.approx(12 / 20)),
        ("weak labels, weighted by confidence: GRA", pytest.approx(14.5 / 20)),
    ]


def test_a_start_that_is_not_measured_yet_says_nothing(bed):
    after, before = student(bed, "weighted", 0, gained=12)
    _, found = shown(section(bed, after))
    assert found == []
    pending = bed.pending("start_reward", "weighted", 0)
    assert shown(section(bed, after, pending))[1] == []
    assert len(shown(section(bed, after, before))[1]) == 1
