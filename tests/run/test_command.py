"""The command line that sweeps share: what it reads, what it refuses and in which words."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.judge import judge
from sweeps.size_grid import size_grid
from sweeps.summarization import summarization
from weakteach.artifacts.errors import UserError
from weakteach.artifacts.step import walk
from weakteach.evaluation.judge import ChatJudge
from weakteach.models.chat.endpoint import Chat
from weakteach.models.resources import Resources
from weakteach.preferences.rows import Wishes
from weakteach.preferences.sources import WorldSource
from weakteach.run.command import Sweep
from weakteach.run.options import Running, resources_of
from weakteach.run.terminal import new_app, run
from weakteach.steps.training import Sft
from weakteach.study.grids import Choices, Endpoint, make_grid
from weakteach.study.presets import EMBEDDED, LAPTOP, PAPER
from weakteach.training.recipes import Lora
from weakteach.worlds.domains import WORLD
from weakteach.worlds.noise import BradleyTerry, UniformFlip

ROOT = Path(__file__).parents[2]
OWN = str(ROOT / "tests/preferences/cases/base-labeled.jsonl")
# Wrong use, and what the one sentence must hold: the option or what it named, and the remedy.
MISTAKES = {
    "unknown option": (["--seds", "1"], ["--seds", "--seeds"]),
    "unknown preset": (["--preset", "big"], ["--preset", "embedded"]),
    "unknown dtype": (["--dtype", "x[/v2]"], ["--dtype", "x[/v2]", "bfloat16"]),
    "unknown tracker": (["--tracker", "tensorboard,me"], ["--tracker", "mlflow"]),
    "option without a value": (["--seeds"], ["--seeds"]),
    "word that is no option": (["more"], ["more"]),
    "seed that is no number": (["--seeds", "0,x"], ["--seeds: x", "0,1,2"]),
    "negative seed": (["--seeds", "-1"], ["--seeds"]),
    "fraction by zero": (["--fractions", "1/0"], ["--fractions: 1/0", "1/16,1/2"]),
    "fraction of one": (["--fractions", "1"], ["--fractions", "between 0 and 1"]),
    "beta of zero": (["--betas", "0"], ["--betas"]),
    "beta that is no number": (["--betas", "nan"], ["--betas"]),
    "no threads": (["--threads", "0"], ["--threads", "at least 1"]),
    "negative workers": (["--train-workers", "-1"], ["--train-workers", "at least 0"]),
    "no arms at a time": (["--max-concurrent", "0"], ["--max-concurrent", "1"]),
    "too few tokens": (["--max-tokens", "3"], ["--max-tokens", "at least 8"]),
    "adapters without a rank": (["--sft-lora", "0"], ["--sft-lora", "at least 1"]),
    "shards without GPUs": (["--fit", "sharded"], ["--fit sharded", "--train-workers"]),
    "unknown fit": (["--fit", "small"], ["--fit", "whole"]),
    "no samples": (["--samples", "0"], ["--samples", "at least 1"]),
    "seeds and rounds": (["--decide", "--seeds", "1"], ["--seeds", "--first-seed"]),
    "rounds of no power of two": (["--decide", "--max-seeds", "12"], ["--max-seeds", "2, 4, 8"]),
    "most seeds without rounds": (["--max-seeds", "8"], ["--max-seeds", "--decide"]),
    "budget without a unit": (["--budget", "45"], ["--budget: 45", "45m"]),
    "gate of one": (["--gate", "1"], ["--gate", "0.5"]),
    "too few test pairs": (["--test-pairs", "1"], ["--test-pairs", "at least 2"]),
    "GPU type without GPUs": (["--gpu-type", "L4"], ["--gpu-type", "--gpus"]),
    "unknown model": (["--weak", "opt-45q"], ["Unknown model 'opt-45q'"]),
    "missing file": (["--data", "few[final].jsonl"], ["few[final].jsonl"]),
    "columns without a name": (["--columns", "prompt"], ["--columns", "prompt=question"]),
    "laptop without data": (["--preset", "laptop"], ["--data FILE"]),
    "judge without an endpoint": (["--judge-model", "m"], ["--endpoint URL"]),
    "storage that cannot be written": (["--storage", "/proc/nothing"], ["/proc/nothing"]),
    "world gold for other data": (
        ["--data", "tests/preferences/cases/base-labeled.jsonl", "--gold", "world"],
        ["--data world:<pairs>"],
    ),
    "gold of another domain": (
        ["--data", "posts:300", "--gold", "world"],
        ["--data world:<pairs>"],
    ),
    "gold that is there twice": (["--gold", "own,world"], ["--gold: ", "is there twice"]),
    "posts without a number": (["--data", "posts:many"], ["posts:<number of pairs>"]),
    "noise that is none": (["--data", "world:64:flips=2"], ["flips=RATE", "world:64:flips"]),
    "missing prices": (["--prices", "our[s].toml"], ["our[s].toml"]),
    "cap without prices": (
        ["--endpoint", "http://localhost:1/v1", "--judge-model", "m", "--endpoint-cap", "1"],
        ["prices"],
    ),
    "address without a port": (["--address", "head"], ["head (--address)", "host:6379"]),
}


@pytest.mark.parametrize(("options", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence_that_names_option_and_remedy(tmp_path, capsys, options, words):
    storage = [] if options[0] == "--storage" else ["--storage", str(tmp_path / "store")]
    code = size_grid.run([*storage, *options])
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err
    if options[0] != "--address":  # which is looked at when the storage is known to be good
        assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("how", [[], ["--check"], ["--plan"]], ids=["run", "check", "plan"])
@pytest.mark.parametrize(
    ("asked", "options", "lacks"),
    [
        (judge, ["--data", OWN], "the data lack a gold: give --gold"),
        (judge, ["--gold", "none"], "the data lack a gold: give --gold"),
        (summarization, ["--data", OWN], "the data lack a second domain"),
        (summarization, ["--preset", "modern"], "the data lack a second domain"),
    ],
    ids=["judge", "judge without gold", "summarization", "preset of one domain"],
)
def test_a_sweep_whose_data_give_it_no_arms_is_refused(
    tmp_path, capsys, monkeypatch, asked, options, lacks, how
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code = asked.run(["--storage", str(tmp_path / "store"), *options, *how])
    out, err = capsys.readouterr()
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert lacks in err
    assert not (tmp_path / "store").exists()


def test_a_cluster_that_does_not_answer_is_told_with_where_its_address_came_from(
    tmp_path, capsys, monkeypatch
):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert size_grid.run(["--storage", str(tmp_path)]) == 2
    assert f"{address} (the environment variable RAY_ADDRESS)" in capsys.readouterr().err


def test_plan_and_help_import_neither_torch_nor_ray_and_print_on_an_ascii_terminal(tmp_path):
    code = """
import sys
from sweeps.size_grid import size_grid
from weakteach.cli import app
from weakteach.run.terminal import run
codes = [size_grid.run(["--plan", "--storage", sys.argv[1]]), size_grid.run(["--help"])]
codes += [run(app, ["--help"]), run(app, ["label", "--help"]), run(app, ["show", "\\u03c3"])]
heavy = {"torch", "ray", "transformers", "datasets", "matplotlib", "scipy"} & set(sys.modules)
assert (codes, heavy) == ([0, 0, 0, 0, 2], set()), (codes, heavy)
"""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LANG": "C", "PYTHONPATH": str(ROOT)}
    storage = tmp_path / "σ"
    done = subprocess.run(
        [sys.executable, "-c", code, storage],
        capture_output=True, text=True, env={**environment, "COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).isascii()
    assert "holds no artifact \\u03c3" in done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for text in ("--seeds INT", "Seeds, such as 0,1,2", "[default:", "Execution", "Plan and cost"):
        assert text in done.stdout
    assert not storage.exists()


def seen(words, decides=False):
    """What a sweep's command hands on for these words."""
    found = {}

    class Spy(Sweep):
        def study(self, asked):
            found.update(vars(asked))
            return 0

    assert Spy("spy", "Spy", lambda grid: [], decides=decides).run(words) == 0
    return found


def test_rounds_of_seeds_are_asked_for_and_refused():
    assert seen([])["seeds"] == ()
    assert seen(["--decide"])["seeds"] == tuple(range(10, 26))
    some = seen(["--decide", "--max-seeds", "4", "--first-seed", "3", "--budget", "45m"])
    assert (some["seeds"], some["budget"]) == ((3, 4, 5, 6), 2700)
    assert some["grid"].seeds == (3, 4, 5, 6)
    assert some["grid"].more_seeds == ()
    assert [seen(["--budget", text])["budget"] for text in ("90s", "2h", "1.5m")] == [90, 7200, 90]


def test_a_sweep_that_goes_in_rounds_does_so_unless_it_is_told_otherwise():
    assert seen([], decides=True)["seeds"] == tuple(range(10, 26))
    assert seen(["--no-decide"], decides=True)["seeds"] == ()
    fixed = seen(["--seeds", "0,1"], decides=True)
    assert (fixed["seeds"], fixed["grid"].seeds) == ((), (0, 1))


def test_samples_are_the_presets_unless_an_option_says():
    assert seen([])["grid"].preset.samples == 4
    assert seen(["--samples", "2"])["grid"].preset.samples == 2
    assert {preset.samples for preset in (LAPTOP, PAPER)} == {1}


def test_lists_are_typed_and_hold_an_item_once():
    words = ["--seeds", "3,1", "--seeds", "1", "--fractions", "1/16,0.5", "--weak", " opt-45k ,"]
    found = seen([*words, "--tracker", "mlflow,wandb", "--node-types", "a,b"])
    ranges = found["grid"].ranges
    assert (ranges.seeds, ranges.weak) == ((3, 1), ("opt-45k",))
    assert ranges.fractions == (Fraction(1, 16), Fraction(1, 2))
    assert ranges.betas == EMBEDDED.ranges.betas
    assert found["running"] == Running(tracker=("mlflow", "wandb"))
    assert found["cost"].node_types == ("a", "b")


@given(st.lists(st.integers(0, 10**6), min_size=1))
def test_any_list_of_seeds_is_read_back(seeds):
    got = []
    app = new_app("x", "")

    @app.default
    def command(*, seeds: tuple[int, ...] = ()) -> None:
        got.append(seeds)

    assert run(app, ["--seeds", ",".join(map(str, seeds))]) == 0
    assert got == [tuple(dict.fromkeys(seeds))]


def test_the_environment_names_the_storage_unless_the_option_does(tmp_path, monkeypatch):
    monkeypatch.setenv("WEAKTEACH_STORAGE", str(tmp_path / "a"))
    assert seen([])["store"].url == str(tmp_path / "a")
    assert seen(["--storage", str(tmp_path / "b")])["store"].url == str(tmp_path / "b")


def test_every_field_of_resources_is_an_option_over_the_presets():
    words = ["--threads", "3", "--label-tasks", "2", "--batch-tokens", "99"]
    expected = Resources(threads=3, label_tasks=2, batch_tokens=99)
    assert seen(words)["resources"] == expected
    assert resources_of(LAPTOP, None) == LAPTOP.resources
    anywhere = replace(PAPER.resources, gpu_type="", max_failures=5)
    assert resources_of(PAPER, {"gpu_type": "any", "max_failures": 5}) == anywhere
    # The user's own number wins, and nothing grows beyond it.
    given = resources_of(PAPER, {"train_workers": 2, "label_actors": 8})
    assert (given.train_workers, given.train_workers_max) == (2, 0)
    assert (given.label_actors, given.label_actors_max) == (8, 0)
    assert resources_of(PAPER, {"train_workers_max": 8}).train_workers_max == 8
    with pytest.raises(UserError, match="--train-workers-max 1"):
        resources_of(PAPER, {"train_workers": 2, "train_workers_max": 1})


def test_all_of_the_endpoint_can_be_set():
    words = {
        "--endpoint": "http://localhost:1/v1", "--annotator-model": "a", "--judge-model": "j",
        "--annotator-prompt": "summary", "--judge-style": "choice", "--endpoint-key": "KEY",
        "--endpoint-concurrency": "2", "--endpoint-rate": "30", "--endpoint-timeout": "5",
        "--endpoint-retries": "1", "--endpoint-input-price": "0.5",
        "--endpoint-output-price": "1.5", "--endpoint-cap": "10",
    }  # fmt: skip
    options = [word for pair in words.items() for word in pair]
    grid = seen([*options, "--endpoint-without-logprobs"])["grid"]
    chat = Chat(
        "a", 0.0, False, "http://localhost:1/v1", "KEY", 2, 30.0, 5.0, 1, 0.5, 1.5, 10.0
    )  # fmt: skip
    labels = grid.lab(grid.point(0)).labels("prompted")
    assert vars(labels.chat) == vars(chat)
    assert labels.domain == "summary"
    assert isinstance(grid.judge, ChatJudge)
    assert vars(grid.judge.chat) == vars(replace(chat, model="j", temperature=1.0))
    assert grid.judge.style == "choice"
    assert make_grid(EMBEDDED, EMBEDDED.first, Choices(), Endpoint()).annotators == {}


def test_the_noise_of_human_choices_is_part_of_the_sources_name():
    def source(data):
        return seen(["--data", data])["grid"].data.held_out.pairs.source

    assert source("world:64") == WorldSource(64, domain=WORLD)
    assert source("world:64:flips=0.1").noise == UniformFlip(0.1)
    assert source("world:64:temperature=2").noise == BradleyTerry(2.0)


def test_columns_and_choice_values_of_own_data_are_part_of_its_source(tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text('{"topic": "p", "response_1": "a", "response_2": "b", "choice": "x"}\n')
    words = ["--data", str(file), "--columns", "prompt=topic", "--choice-values", "x,y"]
    source = seen(words)["grid"].data.held_out.pairs.source
    (row,) = source.read()
    assert (row.prompt, row.preferred) == ("p", 1)
    assert source.wishes == Wishes((("prompt", "topic"),), ("x", "y"))


def test_a_value_of_the_students_recipe_makes_arms_of_its_own():
    """What a sweep over it needs beyond a range, an experiment and a script: nothing."""
    grid = make_grid(EMBEDDED, EMBEDDED.first, Choices())
    usual = grid.lab(grid.point(0))
    ranks = [grid.lab(grid.point(0).with_dpo(lora=Lora(rank))) for rank in (4, 16)]
    assert [lab.setting.recipe.split(", ")[0] for lab in ranks] == ["lora.rank 4", "lora.rank 16"]
    assert usual.setting.recipe == "usual"
    assert "lora.rank 4" in str(ranks[0].setting)
    assert "usual" not in str(usual.setting)
    assert len({lab.policy("weak").fingerprint for lab in (usual, *ranks)}) == 3
    assert len({lab.weak.fingerprint for lab in (usual, *ranks)}) == 1  # the teacher is the same
    same = grid.lab(grid.point(0).with_dpo(beta=usual.policy("weak").recipe.beta))
    assert (same.setting, same.policy("weak")) == (usual.setting, usual.policy("weak"))


def test_the_longest_pair_is_part_of_the_pairs():
    assert seen(["--max-tokens", "99"])["grid"].data.held_out.pairs.max_tokens == 99


def test_sft_of_teachers_and_students_trains_adapters_of_the_rank_asked_for():
    usual, asked = (seen(words)["grid"] for words in ([], ["--sft-lora", "4"]))
    for role in ("weak", "sft"):
        before, after = (grid.lab(grid.point(0)).policy(role) for grid in (usual, asked))
        found = {step for step in walk([after]) if isinstance(step, Sft)}
        assert {step.recipe.lora for step in found} == {Lora(4, alpha=8)}
        assert before.fingerprint != after.fingerprint
    assert not any(
        step.recipe.lora
        for step in walk([usual.lab(usual.point(0)).policy("weak")])
        if isinstance(step, Sft)
    )


def test_a_script_of_a_sweep_is_its_command():
    done = subprocess.run(
        [sys.executable, "sweeps/beta.py", "--plan", "--storage", "/nowhere", "--seeds", "0"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "unique steps" in done.stdout
    assert not done.stderr


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_a_sigterm_ends_a_command_even_one_that_ignores_ctrl_c(ctrl_c, capsys):
    """As one that a script has started with & does."""
    app = new_app("x", "")

    @app.default
    def command() -> None:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("it goes on")

    before = signal.signal(signal.SIGINT, ctrl_c)
    try:
        assert run(app, []) == 143
    finally:
        signal.signal(signal.SIGINT, before)
    assert "The same command goes on from here" in capsys.readouterr().err
