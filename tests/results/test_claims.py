"""Every claim from artifacts whose numbers are known: its difference, its margin, its refusals."""

from pathlib import Path

import numpy as np
import pytest
from synthetic import Bed, experiment

from weakteach.results.claims import STATEMENTS
from weakteach.results.deciding import claim_rows

SIZES = {"opt-45k": 45_000, "opt-230k": 230_000, "opt-1m": 1_000_000}
PROMPTS = [f"q{n:02}" for n in range(20)]
SEEDS = (0, 1, 2)
# What each prompt and seed add to every student's reward: differences are free of both.
EASE = dict(zip(PROMPTS, np.random.default_rng(1).normal(0, 1, 20).tolist(), strict=True))


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path)


def rewards(level, seed, scale=1.0, but=()):
    return {p: scale * (level + EASE[p] + 0.1 * seed) for p in PROMPTS if p not in but}


def students(bed, levels, seeds=SEEDS, scale=1.0, of="gold", **setting):
    """Rewards of roles at these levels, for every seed."""
    return [
        bed.reward(role, seed, rewards(level, seed, scale), of, **setting)
        for seed in seeds
        for role, level in levels.items()
    ]


def claims(bed, *experiments):
    """Rows by the id of their claim."""
    stated = [s for s in STATEMENTS if s.experiment in {one.id for one in experiments}]
    rows = claim_rows(experiments, bed.outcomes, SIZES)
    return {s.claim.id: row for s, row in zip(stated, rows, strict=True)}


def check(row, difference, margin=None):
    assert row.estimate.value == pytest.approx(difference)
    assert row.estimate.prompts == 20
    assert row.estimate.seeds == len(SEEDS)
    if margin is not None:
        assert f"{margin:.2g}" in row.measured


LEVELS = {"base": 0.0, "human": 2.0, "weak": 1.8}


def test_e1_averages_over_students_and_r2_is_at_the_main_one(bed):
    main = students(bed, {**LEVELS, "human_all": 3.0}, student="a")
    other = students(bed, {"base": 1.0, "human": 2.0, "weak": 2.6}, student="b")
    found = claims(bed, experiment("E1", "student", *main, *other))
    check(found["E1"], (-0.2 + 0.6) / 2, 0.1 * (2 + 1) / 2)
    check(found["R2"], -1.2, 0.1 * 2)


def teachers(bed, levels, **setting):
    return [
        bed.reward("weak", seed, rewards(level, seed), weak=name, **setting)
        for seed in SEEDS
        for name, level in levels.items()
    ]


def test_e2_compares_by_size_whatever_the_order_of_teachers(bed):
    controls = students(bed, {"base": 0.0, "human": 2.0})
    weak = teachers(bed, {"opt-1m": 2.5, "opt-45k": 1.5, "opt-230k": 5.0})
    found = claims(bed, experiment("E2", "supervisor", *controls, *weak))
    check(found["E2 size"], 1.5 - 2.5, 0.2)
    check(found["E2 human"], 3.0 - 2.0, 0.2)


@pytest.mark.parametrize(
    ("human", "least", "within"),
    [
        (2.0, " above −0.2", " within ±0.2"),
        (0.0, " above 0", ""),
        (-0.51, " above 0.051", ""),
    ],
)
def test_a_bound_has_its_own_sign_though_human_labels_gain_nothing(bed, human, least, within):
    controls = students(bed, {"base": 0.0, "human": human})
    weak = teachers(bed, {"opt-45k": 1.5, "opt-1m": 2.5})
    found = claims(bed, experiment("E2", "supervisor", *controls, *weak))
    assert found["E2 human"].measured == f"all teachers minus human labels{least}"
    assert found["E2 size"].measured == f"the smallest minus the largest teacher{within}"


def test_e2_with_the_largest_teacher_pending_is_not_measured(bed):
    controls = students(bed, {"base": 0.0, "human": 2.0})
    weak = teachers(bed, {"opt-45k": 1.5, "opt-230k": 5.0})
    open_ = [bed.pending("reward", "weak", seed, "gold", weak="opt-1m") for seed in SEEDS]
    found = claims(bed, experiment("E2", "supervisor", *controls, *weak, *open_))
    assert found["E2 size"].measured == "not measured"
    assert "not all arms" in found["E2 size"].needed
    assert found["E2 human"].measured == "not measured"


def test_e2_says_which_size_is_not_known(bed):
    controls = students(bed, {"base": 0.0, "human": 2.0})
    weak = teachers(bed, {"opt-45k": 1.5, "some/model": 5.0})
    found = claims(bed, experiment("E2", "supervisor", *controls, *weak))
    assert "some/model is not known" in found["E2 size"].needed


def test_e3_leaves_out_the_main_student_in_difference_and_margin(bed):
    main = students(bed, {**LEVELS, "weak": 9.0, "random": 1.0}, student="main")
    other = students(bed, {"base": 1.0, "human": 2.0, "weak": 2.6}, student="llama")
    check(claims(bed, experiment("E3", "student", *main, *other))["E3"], 0.6, 0.1)


def test_e4_is_of_the_prompts_that_seeds_share_and_refused_where_they_share_few(bed):
    def judged(student, prompts_of):
        return [
            bed.verdicts(
                "verdicts", "weak", s, {p: [(1, 1)] for p in prompts_of(s)}, student=student
            )
            for s in SEEDS
        ]

    same = claims(bed, experiment("E4", "student", *judged("a", lambda s: PROMPTS)))["E4"]
    check(same, 0.5, 0.05)
    few = judged("a", lambda s: PROMPTS[5 * s : 5 * s + 10])
    refused = claims(bed, experiment("E4", "student", *few))["E4"]
    assert refused.measured == "not measured"
    assert "share 0 of 20" in refused.needed


def test_a_claim_of_what_a_judge_has_decided_says_how_much_and_is_refused_below_a_share(bed):
    def judged(undecided):
        answers = {f"p{n:02}": [(None, 1) if n < undecided else (1, 1)] for n in range(100)}
        measures = [bed.verdicts("verdicts", "weak", seed, answers) for seed in SEEDS]
        return claims(bed, experiment("E4", "student", *measures))["E4"]

    assert (judged(10).estimate.prompts, judged(10).estimate.left_out) == (90, 10)
    refused = judged(60)
    assert refused.measured == "not measured"
    assert "share 40 of 100" in refused.needed


def test_e5_and_e15_and_e16(bed):
    found = claims(
        bed,
        experiment("E5", "student", *students(bed, LEVELS, student="a", domain="posts")),
        experiment(
            "E15",
            "beta",
            *students(bed, LEVELS, beta="0.4"),
            *students(bed, {"human": 1.0, "weak": 0.0}, beta="2"),
        ),
        experiment("E16", "labels", *students(bed, LEVELS)),
    )
    check(found["E5"], -0.2, 0.2)
    check(found["E15"], (-0.2 - 1.0) / 2, 0.1 * (2 + 1) / 2)
    check(found["E16"], -0.2, 0.2)


def test_e6_is_at_the_smallest_fraction(bed):
    large = students(bed, LEVELS, fraction="1/2")
    small = students(bed, {"base": 0.0, "human": 1.0, "weak": 0.4}, fraction="1/16")
    check(claims(bed, experiment("E6", "fraction", *large, *small))["E6"], -0.6, 0.1)


def test_e6_is_not_measured_where_there_are_human_labels_alone(bed):
    measures = students(bed, {"base": 0.0, "human": 1.0}, fraction="1/16")
    found = claims(bed, experiment("E6", "fraction", *measures))["E6"]
    assert found.estimate is None


def test_e7_e14_e17_and_e18(bed):
    views = {**LEVELS, "matched": 2.1, "mismatched": 0.5, "random": 1.1, "random_mismatched": -1.0}
    labels = students(bed, views)
    without = students(bed, {"human": 1.0, "weak": 0.6}, sft="without SFT")
    head = [
        bed.reward("weak", seed, rewards(2.3, seed), "gold", teacher="reward head")
        for seed in SEEDS
    ]
    found = claims(
        bed,
        experiment("E7", "labels", *labels),
        experiment("E14", "sft", *labels, *without),
        experiment("E17", "labels", *labels),
        experiment("E18", "supervisor", *labels, *head),
    )
    check(found["E7 matched"], -0.3, 0.2)
    check(found["E7 mismatched"], 0.5)
    check(found["E14"], 1.9 - 0.8)
    check(found["E17 all"], 0.7)
    check(found["E17 mismatched"], 1.5)
    check(found["E18"], 0.5, 0.2)


def test_e8_is_of_each_seeds_own_pairs(bed):
    measures = []
    for seed in SEEDS:
        pairs = [f"p{n:02}" for n in range(5 * seed, 5 * seed + 20)]
        for role, chosen in (("human", 2.0), ("weak", 1.7)):
            golds = {p: (chosen + EASE[q], EASE[q]) for p, q in zip(pairs, PROMPTS, strict=True)}
            measures += bed.label_gold(role, seed, golds)
    row = claims(bed, experiment("E8", "labels", *measures))["E8"]
    assert row.estimate.value == pytest.approx(-0.3)
    assert row.measured == "weak minus human labels above −0.2"


def test_e10_is_the_difference_of_mean_consistencies(bed):
    def answers(names, verdicts):
        return {name: [(v, v) for v in verdicts] for name in names}

    measures = []
    for seed in SEEDS:
        sure = answers([f"a{seed}{n}" for n in range(4)], [1, 1, 1, 1])
        unsure = answers([f"b{seed}{n}" for n in range(4)], [1, 2, 1, 2])
        mixed = answers([f"c{seed}{n}" for n in range(4)], [1, 1, 1, 2])
        measures.append(bed.verdicts("consistency", "matched", seed, {**sure, **mixed}))
        measures.append(bed.verdicts("consistency", "mismatched", seed, unsure))
    row = claims(bed, experiment("E10", "labels", *measures))["E10"]
    assert row.estimate.value == pytest.approx((1 + 0.75) / 2 - 0.5)


def test_e11_weighs_gold_models_of_different_scales_alike(bed):
    """One gold is a hundred times as wide as the other, and finds the opposite."""
    wide = students(bed, {"base": 0.0, "human": 2.0, "weak": 1.8}, scale=100.0, of="wide")
    small = students(bed, {"base": 0.0, "human": 1.0, "weak": 1.4}, of="small")
    row = claims(bed, experiment("E11", "student", *wide, *small))["E11"]
    spread = np.std([EASE[p] for p in PROMPTS], ddof=1)
    check(row, (-0.2 + 0.4) / 2 / spread, 0.1 * (2 + 1) / 2 / spread)
    assert "spreads of each gold" in row.measured


def test_e12_is_of_the_other_teachers_alone(bed):
    controls = students(bed, {"base": 0.0, "human": 2.0, "random": 0.5})
    weak = teachers(bed, {"opt-45k": 9.0, "pythia-230k": 1.0, "gpt-neo-230k": 1.5})
    check(claims(bed, experiment("E12", "supervisor", *controls, *weak))["E12"], -0.75, 0.2)


def test_every_statement_is_tested_here():
    here = Path(__file__).read_text()
    for statement in STATEMENTS:
        assert f'"{statement.claim.id}"]' in here, statement.claim.id


def test_one_prompt_in_quarantine_in_each_of_two_cells_does_not_misalign_them(bed):
    measures = [
        bed.reward(role, seed, rewards(level, seed, but=but), student="a")
        for seed in SEEDS
        for role, level, but in (("base", 0, ()), ("human", 2, ("q03",)), ("weak", 1, ("q11",)))
    ]
    row = claims(bed, experiment("E1", "student", *measures))["E1"]
    assert row.estimate.value == pytest.approx(-1.0)
    assert row.estimate.high - row.estimate.low == pytest.approx(0, abs=1e-9)
    assert (row.estimate.prompts, row.estimate.left_out) == (18, 2)


def test_a_claim_with_an_arm_to_come_is_not_measured_and_says_so(bed):
    measures = [*students(bed, LEVELS, seeds=(0, 1)), bed.pending("reward", "weak", 2, "gold")]
    row = claims(bed, experiment("E16", "labels", *measures))["E16"]
    assert (row.verdict, row.measured) == ("not decided", "not measured")
    assert row.needed == "not all arms are done"
