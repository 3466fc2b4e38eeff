"""What rounds of seeds cost, in words, in the plan's table, and against --max-cost."""

import re

import pytest
from rich.console import Console

from weakteach.artifacts.store import Store
from weakteach.results.rounds import next_rounds
from weakteach.run.asked import Asked, RoundsCost, plan_of
from weakteach.run.options import Cost, Running
from weakteach.run.plan import make_plan, seconds_of
from weakteach.run.prices import CostError
from weakteach.study.experiment import arms_of
from weakteach.study.experiments import size_grid
from weakteach.study.grids import Choices, make_grid
from weakteach.study.presets import EMBEDDED

# A second of a core is 1 EUR on one kind of node and 2 on the other.
TABLE = """
currency = "EUR"
workers = "on_demand"
[speed."CPU core"]
"CPU core" = 1.0
[nodes.cheap]
cloud = "ours"
device = "CPU core"
devices = 2
on_demand = 7200.0
[nodes.dear]
cloud = "ours"
device = "CPU core"
devices = 1
on_demand = 7200.0
"""
SEEDS = (10, 11, 12, 13, 14, 15, 16, 17)


def planned(folder, seeds=SEEDS, max_cost=None, node_types=(), **running):
    table = folder / "ours.toml"
    table.write_text(TABLE)
    choices = Choices(weak=("opt-45k",), seeds=seeds, student="opt-45k")
    grid = make_grid(EMBEDDED, EMBEDDED.first, choices, resolve=False)
    cost = Cost(plan=True, prices=table, max_cost=max_cost, node_types=node_types)
    asked = Asked(
        "sizes", "Sizes", grid, [size_grid(grid)], seeds, Store(folder / "store"),
        EMBEDDED.resources, Running(**running), cost, None, False,
    )  # fmt: skip
    return plan_of(asked)


def rounds_of(found):
    """Arms of each round, if nothing is decided before the last, and the seconds of those of its
    steps that no earlier one has."""
    rounds, seen, told = found.rounds, set(), []
    for _, wanted in next_rounds(rounds.universe, found.survey, rounds.sizes, rounds.seeds):
        arms = arms_of(wanted)
        new = set(make_plan(arms, found.asked.store, EMBEDDED.scale).missing) - seen
        seen |= new
        told.append((arms, sum(seconds_of(step, EMBEDDED.scale) for step in new)))
    return told


def test_the_table_adds_up_what_rounds_cost_and_the_sentence_tells_the_next(tmp_path):
    found = planned(tmp_path)
    seconds = [spent for _, spent in rounds_of(found)]
    assert len(seconds) == 3
    assert min(seconds) > 1
    console = Console(width=200, record=True)
    console.print(found.rounds.table(found.survey, 1, found.tariff))
    text = console.export_text()
    assert "EUR (on demand)" in text
    shown = [f"{one:,.2f} to {2 * one:,.2f}" for one in (*seconds, sum(seconds))]
    rows = [line for line in text.splitlines() if " to " in line]
    assert [money in row for money, row in zip(shown, rows, strict=True)] == [True] * 4
    assert rows[-1].split("│")[1].strip() == "all"
    assert int(rows[-1].split("│")[5]) == sum(int(row.split("│")[5]) for row in rows[:-1])
    sentence = found.rounds.sentence(found.survey, 1, found.tariff)
    assert sentence.endswith(f" with 1 at a time, {shown[0]} EUR (on demand).")
    assert found.rounds.sentence(found.survey, 1).endswith(" with 1 at a time.")


def test_without_records_the_time_of_a_round_is_the_plans(tmp_path):
    """With its steps of decoding: of operations alone it would be less than half."""
    found = planned(tmp_path)
    hours = found.plan.device_hours
    wanted = found.survey.experiments
    assert found.rounds.seconds(found.plan.missing, wanted) == pytest.approx(3600 * hours)


@pytest.mark.parametrize("node_types", [(), ("cheap",)])
def test_a_round_is_refused_when_all_so_far_cost_too_much(tmp_path, node_types):
    """On the dearest node that may be taken; a round of its own would be cheap enough."""
    price = 1 if node_types else 2
    (_, first), (second_arms, second), (third_arms, third) = rounds_of(planned(tmp_path))
    most = price * (first + second)
    enough = planned(tmp_path, max_cost=most + 0.01, node_types=node_types)
    enough.check_cost()
    check = RoundsCost(enough)
    check(second_arms)
    with pytest.raises(CostError, match="would cost about") as refused:
        check(third_arms)
    (amount,) = re.findall(r"about ([\d,.]+) EUR", str(refused.value))
    # The third has steps in common with the second, of which nothing was computed here.
    assert float(amount.replace(",", "")) >= price * (first + second + third) - 0.01
    too_little = planned(tmp_path, max_cost=most - 0.01, node_types=node_types)
    too_little.check_cost()
    with pytest.raises(CostError, match=f"about {most:,.2f} EUR on "):
        RoundsCost(too_little)(second_arms)


def test_without_a_maximum_no_round_is_refused(tmp_path):
    found = planned(tmp_path)
    for arms, _ in rounds_of(found):
        RoundsCost(found)(arms)


def places(arms):
    return [(arm.setting.fraction, arm.seed) for arm in arms]


@pytest.mark.parametrize("seeds", [SEEDS, ()])
def test_the_plan_of_arms_is_in_the_order_in_which_they_start(tmp_path, seeds):
    """Fewer labeled pairs leave more for the teacher to label and the students to learn from."""
    found = planned(tmp_path, seeds)
    ordered = [arm.setting.fraction for arm in found.arms]
    assert ordered == sorted(ordered, key=lambda fraction: ("1/8", "1/2").index(fraction))
    assert len(set(ordered)) == 2
    assert places(found.arms) != places(arms_of(found.experiments))


def test_all_that_can_be_dropped_counts_where_the_cluster_is_to_say_how_many_arms_run(tmp_path):
    one = planned(tmp_path, max_concurrent=1).disk
    unknown = planned(tmp_path, address="10.0.0.1:6379").disk
    assert unknown.bulk_at_once == unknown.bulk == one.bulk > one.bulk_at_once > 0
