"""What the identity of this field's steps rests on."""

import importlib
import pkgutil
from fractions import Fraction

import pytest

import weakteach
from weakteach.artifacts.step import Step, walk
from weakteach.evaluation.gold import WorldGold
from weakteach.evaluation.judge import ChatJudge, RewardJudge
from weakteach.models.chat.endpoint import Chat
from weakteach.models.spec import Model, Tokenizer
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import HeldOut, Pairs, Split
from weakteach.steps.evaluation import Generate, GoldReward
from weakteach.steps.judging import PairVerdicts, Verdicts
from weakteach.steps.labels import GoldLabels, HumanLabels

MODEL, TOKENIZER = Model("sha256:model"), Tokenizer("sha256:tokenizer")
HELD_OUT = HeldOut(Pairs(WorldSource(100), (TOKENIZER,)), 20, gold_pairs=10)
SPLIT = Split(HELD_OUT, Fraction(1, 2), seed=0)
HUMAN = HumanLabels(SPLIT.unlabeled)
RESPONSES = Generate(MODEL, HELD_OUT.test, seed=0)
CHAT_JUDGE = ChatJudge(Chat("judge"))


def import_all_modules() -> None:
    for module in pkgutil.walk_packages(weakteach.__path__, "weakteach."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def step_classes() -> set[type[Step]]:
    """All classes of steps in the package."""
    import_all_modules()
    found: set[type[Step]] = set()
    waiting: list[type[Step]] = [Step]
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        waiting += subclasses
        found |= {kind for kind in subclasses if kind.__module__.startswith("weakteach.")}
    return found


def test_no_step_reads_artifacts_but_through_its_fields():
    for kind in step_classes():
        own = {"inputs", "identity", "parameters", "fingerprint"} & set(vars(kind))
        assert not own, f"{kind.__name__} defines {own}, which follow from the fields alone"


@pytest.mark.parametrize(
    ("make", "reads"),
    [
        (lambda: Verdicts(RESPONSES, RESPONSES, RewardJudge(WorldGold(), 1.0)), GoldReward),
        (lambda: PairVerdicts(HUMAN, RewardJudge(WorldGold(), 1.0)), GoldLabels),
    ],
)
def test_a_new_version_of_what_a_judge_of_rewards_reads_makes_its_verdicts_anew(
    make, reads, monkeypatch
):
    before = make()
    assert reads in {type(step) for step in walk([before])}
    monkeypatch.setattr(reads, "VERSION", reads.VERSION + 1)
    assert make().fingerprint != before.fingerprint


def test_a_judge_that_reads_no_rewards_needs_none():
    assert Verdicts(RESPONSES, RESPONSES, CHAT_JUDGE).inputs == (RESPONSES,)
    assert PairVerdicts(HUMAN, CHAT_JUDGE).inputs == (HUMAN,)
