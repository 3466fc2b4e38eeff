"""Experiments as values, and their scripts as their users plan them."""

import re
import shutil
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import pytest

from weakteach.artifacts.step import walk
from weakteach.preferences.pair import DataError
from weakteach.results.analysis import AXES, PLACES
from weakteach.run.command import Sweep
from weakteach.steps.evaluation import Agreement
from weakteach.steps.teachers import Alike, Reliability
from weakteach.steps.training import Dpo, RewardHead, Sft
from weakteach.steps.views import Calibrated, Gated, Weighted
from weakteach.study.beyond import BEYOND, LOSSES, variants
from weakteach.study.experiment import arms_of
from weakteach.study.experiments import EXPERIMENTS, beside_human, consistency, judged, size_grid
from weakteach.study.grids import Choices, make_grid
from weakteach.study.presets import ALL_FRACTIONS, EMBEDDED, PAPER, PRESETS
from weakteach.study.roles import CONTROLS, HALF, ROLES, TEACHERS, WEIGHTINGS
from weakteach.study.teachers import kinds, stability, transfer, trust

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "sweeps").glob("*.py"))
IDS = [
    *(f"E{number}" for number in range(1, 19)),
    *(f"C{number}" for number in range(1, 6)),
    *(f"R{number}" for number in (5, 6, 8, 11, 12)),
]


@pytest.fixture(scope="module")
def grid():
    return make_grid(EMBEDDED, EMBEDDED.ranges, Choices())


@pytest.fixture
def plan(capsys, monkeypatch):
    """Plans a script in this process; what it prints."""
    monkeypatch.setenv("COLUMNS", "200")

    def command(script, *options):
        here = vars(import_module(f"sweeps.{script.stem}")).values()
        (found,) = (value for value in here if isinstance(value, Sweep))
        assert found.run(["--plan", *options]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return command


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_is_short_and_plans_without_running(script, tmp_path, plan):
    assert len(script.read_text().splitlines()) <= 40
    out = plan(script, "--storage", str(tmp_path / "store"))
    assert re.search(r"[1-9]\d* unique steps 0 of which exist", out.replace(",", ""))
    assert not list((tmp_path / "store").glob("*/*"))


@pytest.mark.parametrize("preset", ["embedded", "paper"])
def test_the_plan_of_the_whole_publication_lists_every_experiment(tmp_path, preset, plan):
    out = plan(ROOT / "sweeps/paper.py", "--preset", preset, "--storage", str(tmp_path / "store"))
    assert re.findall(r"│ ([ECR]\d+) ", out) == IDS


def test_the_main_teacher_is_the_first_named_whatever_its_size():
    asked = Choices(weak=("opt-230k", "opt-45k"), fractions=(Fraction(1, 4), Fraction(1, 8)))
    point = make_grid(EMBEDDED, EMBEDDED.ranges, asked).point(3)
    assert (str(point.weak), point.fraction, point.seed) == ("opt-230k", Fraction(1, 4), 3)


@pytest.mark.parametrize(
    "options",
    [
        {"weak": ("a/final", "b/final")},
        {"students": ("a/final", "b/final")},
        {"weak": ("a/final",), "student": "b/final"},
    ],
)
def test_two_models_of_one_name_are_refused_and_one_model_twice_is_not(
    tiny, tmp_path, monkeypatch, options
):
    monkeypatch.chdir(tmp_path)
    for folder in ("a/final", "b/final"):
        shutil.copytree(tiny, folder)
    make_grid(EMBEDDED, EMBEDDED.first, Choices(**options))  # of equal content
    with open("b/final/config.json", "a") as config:
        config.write("\n")
    with pytest.raises(DataError, match=r"called final \(.*a/final and .*b/final\).*: rename"):
        make_grid(EMBEDDED, EMBEDDED.first, Choices(**options))


def test_ids_are_unique_and_every_experiment_measures_something(grid):
    experiments = [make(grid) for make in (*EXPERIMENTS, *BEYOND)]
    assert [one.id for one in experiments] == IDS
    assert all(one.measures for one in experiments)
    assert {one.axis for one in experiments} <= set(AXES) == set(PLACES)
    for one in experiments:
        assert {measure.role for measure in one.measures} <= set(ROLES)


def test_every_experiment_with_students_has_the_controls_at_its_main_point(grid):
    for make in EXPERIMENTS:
        experiment = make(grid)
        roles = {one.role for one in experiment.measures if one.kind == "reward"}
        if experiment.id in ("E4", "E8", "E9", "E10", "E11", "E13"):
            continue  # evaluations over the others' students and labels
        assert set(grid.controls) <= roles, experiment.id


def test_the_first_look_compares_what_matters_and_all_controls_where_they_are_asked_for():
    def roles(choices):
        grid = make_grid(EMBEDDED, EMBEDDED.first, choices)
        both = (size_grid(grid), beside_human(grid))
        return [{measure.role for measure in one.measures} for one in both]

    # Of the gold alone, how far it agrees with humans; "weak" in both as labels, not as a student.
    first, beside = {"base", "human", "weak", "gold"}, {"few_long", "both", "weak", "gold"}
    assert roles(Choices()) == [first, beside]
    assert roles(Choices(controls="all")) == [set(CONTROLS), beside | {"human_all"}]
    assert roles(Choices(controls="both")) == [first | {"human_all"}, beside | {"human_all"}]
    assert roles(Choices(gold=("none",))) == [first - {"base", "gold"}, beside - {"gold"}]


def test_students_learn_from_a_teacher_through_the_gate_where_there_is_one():
    def through(choices):
        grid = make_grid(EMBEDDED, EMBEDDED.first, choices)
        gated = {
            measure.role: {step.threshold for step in walk([measure.target]) if type(step) is Gated}
            for measure in (*size_grid(grid).measures, *beside_human(grid).measures)
            if measure.kind == "reward"
        }
        return {role for role, found in gated.items() if found == {0.6}}

    assert through(Choices(controls="all", gate=0.6)) == {"weak", "random", "both"}
    assert through(Choices(controls="all")) == set()


def test_a_domain_is_called_by_words():
    def name(choices):
        return make_grid(EMBEDDED, EMBEDDED.first, choices).data.name

    assert name(Choices()) == name(Choices(data="world:300:flips=0.2")) == "embedded world"
    assert name(Choices(data="posts:300")) == "embedded posts"


def test_the_union_shares_steps_and_has_those_of_every_experiment(grid):
    experiments = [make(grid) for make in (*EXPERIMENTS, *BEYOND)]
    union = {s.fingerprint for s in walk(t for arm in arms_of(experiments) for t in arm.targets)}
    alone = [
        {s.fingerprint for s in walk(t for arm in arms_of([one]) for t in arm.targets)}
        for one in experiments
    ]
    assert set().union(*alone) == union
    assert len(union) < sum(map(len, alone)) / 2


def test_a_judge_compares_the_same_prompts_and_pairs_for_all_seeds(grid):
    measures = [one for make in (judged, consistency) for one in make(grid).measures]
    assert len({one.seed for one in measures}) == 3
    assert len({one.target.seed for one in measures}) == 1


def test_arms_of_one_setting_and_seed_are_one(grid):
    experiments = [make(grid) for make in (*EXPERIMENTS, *BEYOND)]
    arms = arms_of(experiments)
    assert len({arm.name for arm in arms}) == len(arms)
    for arm in arms:
        assert len(set(arm.measures)) == len(arm.measures)


def test_the_paper_preset_has_the_papers_models_and_hyperparameters():
    grid = make_grid(PAPER, PAPER.ranges, Choices(), resolve=False)
    assert [str(s) for s in grid.students] == [f"facebook/opt-{n}b" for n in (1.3, 2.7, 6.7, 13)]
    recipes = grid.data.student("facebook/opt-1.3b")
    assert (recipes.dpo.beta, recipes.dpo.lora.rank, recipes.dpo.schedule.batch) == (0.1, 8, 16)
    assert grid.summaries.student("facebook/opt-1.3b").dpo.beta == 0.5


def test_the_margin_and_the_vote_reach_the_loss_and_what_they_share_is_shared(grid):
    lab = grid.lab(grid.point(0))
    weak, target, vote = (lab.policy(role) for role in ("weak", "target", "ensemble"))
    assert target.start == weak.start  # SFT reads choices alone
    assert (target.recipe.loss, target.recipe.soft, target.recipe.weighted) == ("cdpo", True, False)
    assert (vote.recipe.loss, vote.recipe.soft, vote.recipe.weighted) == ("dpo", False, True)
    members = [str(one.teacher.start.start) for one in vote.labels.members]
    assert members == ["opt-45k", "opt-230k", "opt-1m", "pythia-230k", "gpt-neo-230k"]
    experiment = variants(grid)
    taught = {str(m.setting.weak) for m in experiment.measures if m.role == "weak"}
    assert taught == set(members)


@pytest.mark.parametrize("kind", TEACHERS)
@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_teachers_of_all_fractions_make_equally_many_updates(preset, kind, tmp_path, tiny):
    """The laptop's own recipe is for models that are no embedded ones, such as one in a folder."""
    own = preset.data.data is None
    mine = str(shutil.copytree(tiny, tmp_path / "mine"))
    chosen = Choices(
        data="world:2000" if own else preset.data.data,
        weak=("opt-230k", mine) if own else (),
        student="opt-230k" if own else None,
    )
    grid = make_grid(preset, preset.ranges, chosen, resolve=False)
    if own:
        assert not preset.data.teacher_recipes(mine).dpo.schedule.steps

    def updates(step):
        """Those of a training, if 100,000 pairs were divided."""
        split = (step.as_long_as or step.labels).part.step
        return step.recipe.schedule.updates(int(100_000 * split.fraction))

    for weak in grid.weak:
        main = replace(grid.point(3), weak=weak, teacher=kind, fraction=HALF)
        of_half = trainings(grid.lab(main).teacher)
        assert {step.as_long_as for step in of_half} == {None}
        for fraction in (*ALL_FRACTIONS, Fraction(3, 4)):
            lab = grid.lab(replace(main, fraction=fraction))
            found = trainings(lab.teacher)
            assert [updates(step) for step in found] == [updates(step) for step in of_half]
            assert {step.labels for step in found} == {lab.few}
            if all(step.recipe.schedule.steps for step in found):
                assert {step.as_long_as for step in found} == {None}


def trainings(teacher):
    return [step for step in walk([teacher]) if isinstance(step, Sft | Dpo | RewardHead)]


def test_weights_and_soft_labels_reach_the_loss_of_their_students(grid):
    lab = grid.lab(grid.point(0))
    weak = lab.policy("weak")
    for role, weighting in WEIGHTINGS.items():
        student = lab.policy(role)
        assert student.labels == Weighted(weak.labels, weighting)
        assert student.recipe == replace(weak.recipe, weighted=True)
        assert student.start == weak.start
    soft = lab.policy("soft")
    assert soft.labels == Calibrated(weak.labels, lab.verdict)
    assert soft.recipe == replace(weak.recipe, loss="cdpo", soft=True)
    assert soft.start == weak.start
    for changes in LOSSES:
        other = grid.lab(grid.point(0).with_dpo(**changes)).policy("weighted")
        assert other.recipe == replace(weak.recipe, **changes, weighted=True)


def test_how_long_few_labels_are_trained_on_is_found_without_the_held_out_ones(grid):
    student = grid.lab(grid.point(0)).policy("few_stopped")
    found = student.as_long_as
    assert (student.labels.part.name, student.until) == ("labeled", None)
    assert (found.labels.part.name, found.until.part.name) == ("train", "held_out")
    assert found.labels.part.step == found.until.part.step
    assert found.start.labels == found.labels
    assert found.recipe.schedule.epochs == 10


def test_teachers_are_compared_on_the_same_test_pairs(grid):
    for make in (kinds, trust, stability, transfer):
        parts = {step.part for m in make(grid).measures for step in labels_of(m.target)}
        assert {part.name for part in parts} == {"test"}
        assert len(parts) == (2 if make is transfer else 1)
    main = grid.lab(grid.point(0))
    again = grid.lab(replace(grid.point(0), retrained=True))
    assert again.teacher.labels == main.teacher.labels
    assert again.teacher.start.seed != main.teacher.start.seed


def labels_of(step):
    """The labels that a measure of teachers is of."""
    match step:
        case Agreement() | Reliability():
            return [step.labels]
        case Alike():
            return [step.one, step.other]
