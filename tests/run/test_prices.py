"""What a study would cost, as its script tells it, and when it refuses to start."""

import re

import pytest

from sweeps.size_grid import size_grid
from weakteach.run.prices import SHIPPED, PriceError, read_prices, tariff_of

TABLE = """
currency = "EUR"
workers = "spot"
[speed.A100]
A100 = 1.0
L4 = 0.25
[speed."CPU core"]
"CPU core" = 1.0
[nodes.big]
cloud = "ours"
device = "A100"
devices = 8
on_demand = 16.0
spot = 8.0
[nodes.small]
cloud = "ours"
device = "L4"
devices = 1
on_demand = 1.0
[nodes.server]
cloud = "ours"
device = "CPU core"
devices = 16
on_demand = 1600.0
spot = 800.0
"""


@pytest.fixture
def sweep(capsys, monkeypatch):
    """Runs the size grid's command in this process."""

    def run(storage, *options):
        monkeypatch.setenv("COLUMNS", "300")
        code = size_grid.run(["--storage", str(storage), *map(str, options)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def table(tmp_path):
    file = tmp_path / "ours.toml"
    file.write_text(TABLE)
    return file


def costs(hours: float, *asked):
    return tariff_of("A100", *asked).costs(hours)


def test_cost_is_hours_over_speed_and_devices_times_the_price_of_the_node(table):
    prices = read_prices(table)
    big, small = costs(100, prices)
    assert (big.name, big.device_hours, big.on_demand, big.spot) == ("big", 100, 200, 100)
    assert (small.device_hours, small.on_demand, small.spot) == (400, 400, None)
    assert (big.paid("spot"), big.paid("on_demand"), small.paid("spot")) == (100, 200, 400)


def test_only_nodes_with_the_gpu_asked_for_count(table):
    prices = read_prices(table)
    assert [cost.name for cost in costs(1, prices, "L4")] == ["small"]
    assert [cost.name for cost in costs(1, prices, "H100")] == []
    assert [cost.name for cost in costs(1, prices, "", ["big"])] == ["big"]
    with pytest.raises(PriceError, match="server is not among the node types"):
        costs(1, prices, "", ["server"])


def test_what_hours_cost_lies_between_the_cheapest_and_the_dearest_node(table):
    prices = read_prices(table)
    assert tariff_of("A100", prices).between(100) == "100.00 to 400.00"
    assert tariff_of("A100", prices, "L4").between(100) == "400.00"
    assert tariff_of("A100", prices, "H100").between(100) == ""
    assert tariff_of("A100", prices).money == "EUR (spot)"


@pytest.mark.parametrize(
    ("written", "instead", "sentence"),
    [
        (
            "devices = 8",
            "devices = 0",
            "nodes.big.devices: Input should be greater than or",
        ),
        ("devices = 8", "devices = 8.5", "nodes.big.devices: Input should be a valid integer"),
        ("spot = 8.0", "spot = nan", "nodes.big.spot: Input should be a finite number"),
        ("spot = 8.0", "spot = -1", "nodes.big.spot: Input should be greater than or equal to 0"),
        (
            "on_demand = 16.0",
            'on_demand = "16"',
            "on_demand: Input should be a valid number",
        ),
        ("spot = 8.0", "sport = 8.0", "nodes.big.sport: Extra inputs are not permitted"),
        ('cloud = "ours"\ndevice = "L4"', 'device = "L4"', "nodes.small.cloud: Field required"),
        ("L4 = 0.25", "L4 = 0", "speed.A100.L4: Input should be greater than 0"),
        ('workers = "spot"', 'workers = "cheap"', "workers: Input should be 'spot' or 'on_demand'"),
        ('currency = "EUR"', "", "currency: Field required"),
        ('currency = "EUR"', 'nodes = 3\ncurrency = "EUR"', "is no TOML"),
        ("[nodes.big]", "[nodes.big", "is no TOML"),
    ],
)
def test_a_mistake_in_the_table_is_named(table, written, instead, sentence):
    table.write_text(TABLE.replace(written, instead, 1))
    with pytest.raises(PriceError, match=re.escape(sentence)) as caught:
        read_prices(table)
    assert "ours.toml" in str(caught.value)


def test_the_shipped_table_prices_every_preset():
    prices = read_prices()
    assert SHIPPED.is_file()
    assert {"A100", "CPU core"} <= prices.speed.keys()
    for name, node in prices.nodes.items():
        assert any(node.device in speeds for speeds in prices.speed.values()), name
        assert node.spot is None or node.spot <= node.on_demand


def test_a_plan_shows_device_hours_and_money_per_node_type(sweep, tmp_path, table):
    code, out, err = sweep(*(tmp_path / "store", "--preset", "paper", "--plan", "--prices", table))
    assert code == 0, err
    assert "Cost in EUR, by ours.toml" in out
    hours = float(re.search(r"about ([\d,.]+) A100-hours", out)[1])
    row = re.search(r"big +│ ours +│ +8 A100 │ +([\d,.]+) │ +([\d,.]+) │ +([\d,.]+) │", out)
    shown, on_demand, spot = (float(cell.replace(",", "")) for cell in row.groups())
    assert shown == hours
    assert on_demand == pytest.approx(2 * spot, abs=0.011)
    assert spot == pytest.approx(hours, rel=0.01)
    assert "small" not in out  # the preset asks for A100s
    assert not list(tmp_path.glob("store/**/*.json"))


@pytest.mark.parametrize("preset", ["paper", "modern"])
def test_a_plan_tells_hours_and_money_by_devices_and_gigabytes_by_step(sweep, tmp_path, preset):
    code, out, err = sweep(tmp_path / "store", "--preset", preset, "--plan")
    assert code == 0, err
    hours = float(re.search(r"about ([\d,.]+) A100-hours", out)[1])
    simulated = {
        int(devices): float(shown.replace(",", ""))
        for devices, shown in re.findall(r"│ +(1|8|64) │ +([\d,.]+) │ +\d+% │ +[\d,.]+ to", out)
    }
    assert simulated[1] == pytest.approx(hours, rel=0.02)
    assert simulated[1] > 4 * simulated[8] > 4 * simulated[64]
    assert "GiB of a GPU, estimated" in out
    for kind in ("Sft", "Dpo", "WeakLabels", "Generate", "GoldReward"):
        assert re.search(rf"│ {kind} +│ \S+ +│ +[\d.]+ │", out)


def test_a_plan_for_a_type_of_gpu_counts_in_its_hours(sweep, tmp_path, table):
    options = ("--preset", "paper", "--plan", "--prices", table, "--gpu-type", "L4")
    code, out, err = sweep(tmp_path / "store", *options)
    assert code == 0, err
    hours = re.search(r"about ([\d,.]+) L4-hours", out)[1]
    row = re.search(r"small +│ ours +│ +1 L4 │ +([\d,.]+) │ +([\d,.]+) │", out)
    shown, on_demand = (float(cell.replace(",", "")) for cell in row.groups())
    assert shown == float(hours.replace(",", ""))
    assert on_demand == pytest.approx(shown, rel=0.01)
    assert "big" not in out


@pytest.mark.parametrize("planning", [["--plan"], []])
def test_a_study_above_the_maximum_is_not_started(sweep, tmp_path, table, planning):
    code, out, err = sweep(*(tmp_path / "store", *planning, "--prices", table, "--max-cost", "0.5"))
    assert code == 2, out
    assert re.search(r"would cost about [\d.]+ EUR on server, more than --max-cost 0.50", err)
    assert "Traceback" not in err
    assert ("Cost in EUR" in out) == bool(planning)
    assert not list(tmp_path.glob("store/**/*.json"))


def test_a_maximum_that_suffices_lets_a_plan_pass(sweep, tmp_path, table):
    code, _, err = sweep(tmp_path, "--plan", "--prices", table, "--max-cost", "1000")
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--weak", "someone/model", "--preset", "paper"], "the size of someone/model cannot"),
        (["--preset", "paper", "--gpu-type", "H100"], "ours.toml has no node type for this study"),
        (["--gpu-type", "L4"], "the preset embedded runs without GPUs"),
        (["--node-types", "big"], "big is not among the node types of ours.toml"),
    ],
)
def test_a_maximum_that_cannot_be_checked_is_refused(sweep, tmp_path, table, options, sentence):
    code, out, err = sweep(
        *(tmp_path / "store", "--plan", *options, "--prices", table, "--max-cost", "9999")
    )
    assert code == 2, out
    assert sentence in err
    assert "Traceback" not in err
