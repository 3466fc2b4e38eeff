"""What the identity of this field's steps rests on.

``pins.json`` holds the fingerprint of one step of each class, and the defaults of every class whose
fields enter a fingerprint. A default does not enter a fingerprint itself, so without a pin one that
is changed would have the artifacts of the old one used for it, in silence.
"""

import importlib
import inspect
import json
import pkgutil
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from fractions import Fraction
from pathlib import Path

import pytest

import weakteach
from weakteach.artifacts.identity import jsonable
from weakteach.artifacts.step import Step, walk
from weakteach.evaluation.gold import RewardModel, WorldGold
from weakteach.evaluation.judge import ChatJudge, RewardJudge
from weakteach.models.chat.endpoint import Chat
from weakteach.models.spec import Model, Tokenizer
from weakteach.preferences.sources import WorldSource
from weakteach.steps.asking import AskHumans
from weakteach.steps.data import Converted, Dequantized, HeldOut, Pairs, Pretrained, Split
from weakteach.steps.evaluation import Agreement, Generate, GoldReward, LabelGold, Similarity
from weakteach.steps.judging import PairVerdicts, PromptedLabels, Verdicts
from weakteach.steps.labels import GoldLabels, HumanLabels, WeakLabels
from weakteach.steps.teachers import Alike, Reliability
from weakteach.steps.training import Dpo, RewardHead, Sft
from weakteach.steps.verdict import CrossFitted, Fold, Folds, NewToTeacher, Verdict
from weakteach.steps.views import (
    Calibrated,
    Claimed,
    Ensemble,
    Gated,
    Matched,
    Mismatched,
    RandomFlips,
    Together,
    TopMargin,
    Weighted,
)
from weakteach.training.recipes import DpoRecipe, RewardRecipe, SftRecipe
from weakteach.worlds.noise import BradleyTerry

PINS = Path(__file__).with_name("pins.json")

MODEL, TOKENIZER = Model("sha256:model"), Tokenizer("sha256:tokenizer")
PAIRS = Pairs(WorldSource(100), (TOKENIZER,))
HELD_OUT = HeldOut(PAIRS, 20, gold_pairs=10)
SPLIT = Split(HELD_OUT, Fraction(1, 2), seed=0)
HUMAN = HumanLabels(SPLIT.unlabeled)
FEW = HumanLabels(SPLIT.labeled)
SFT = Sft(MODEL, HUMAN, SftRecipe(), seed=0)
DPO = Dpo(SFT, HUMAN, DpoRecipe(), seed=0)
REWARD_HEAD = RewardHead(MODEL, HUMAN, RewardRecipe(), seed=0)
WEAK = WeakLabels(DPO, SPLIT.unlabeled)
GOLD = GoldLabels(SPLIT.unlabeled, RewardModel(MODEL))
RESPONSES = Generate(DPO, HELD_OUT.test, seed=0)
CHAT = Chat("judge")
FOLDS = Folds(PAIRS.all, 2, 1)
FITTED = CrossFitted("tiny", 0, (WEAK, WEAK))
VERDICT = Verdict(FOLDS, FITTED)
SEEN = NewToTeacher(WEAK, SPLIT.labeled)
REWARD_JUDGE = RewardJudge(WorldGold(), 1.0)

STEPS = {
    "Converted": Converted(MODEL),
    "Dequantized": Dequantized(MODEL),
    "Pretrained": Pretrained("opt-45k", 64),
    "Pairs": PAIRS,
    "Pairs with its own noise": Pairs(WorldSource(100, noise=BradleyTerry()), (TOKENIZER,)),
    "HeldOut": HELD_OUT,
    "Split": SPLIT,
    "HumanLabels": HUMAN,
    "Sft": SFT,
    "Dpo": DPO,
    "Dpo until held-out labels": Dpo(SFT, HUMAN, DpoRecipe(), 0, until=FEW),
    "Dpo as long as another": Dpo(SFT, HUMAN, DpoRecipe(), 0, as_long_as=DPO),
    "RewardHead": REWARD_HEAD,
    "WeakLabels": WEAK,
    "WeakLabels of a reward head": WeakLabels(REWARD_HEAD, SPLIT.unlabeled),
    "GoldLabels": GOLD,
    "Matched": Matched(WEAK, HUMAN),
    "Mismatched": Mismatched(WEAK, HUMAN),
    "TopMargin": TopMargin(WEAK, Fraction(1, 2)),
    "Weighted": Weighted(WEAK, "C2"),
    "Together": Together(HumanLabels(SPLIT.labeled), WEAK, HELD_OUT.train),
    "Calibrated": Calibrated(WEAK, VERDICT),
    "Gated": Gated(WEAK, VERDICT, 0.5),
    "RandomFlips": RandomFlips(HUMAN, WEAK, seed=0),
    "PromptedLabels": PromptedLabels(CHAT, SPLIT.unlabeled),
    "Agreement": Agreement(WEAK, GOLD),
    "Generate": RESPONSES,
    "GoldReward": GoldReward(RESPONSES, WorldGold()),
    "LabelGold": LabelGold(WEAK, GOLD),
    "Similarity": Similarity(RESPONSES, HELD_OUT.test, MODEL),
    "Verdicts": Verdicts(RESPONSES, RESPONSES, ChatJudge(CHAT)),
    "Verdicts of rewards": Verdicts(RESPONSES, RESPONSES, REWARD_JUDGE),
    "PairVerdicts": PairVerdicts(HUMAN, ChatJudge(CHAT)),
    "PairVerdicts of rewards": PairVerdicts(HUMAN, REWARD_JUDGE),
    "Folds": FOLDS,
    "Fold": Fold(FOLDS, 0, 1),
    "Verdict": VERDICT,
    "AskHumans": AskHumans((WEAK,), SEEN, VERDICT, 10),
    "NewToTeacher": SEEN,
    "Claimed": Claimed(WEAK),
    "Ensemble": Ensemble((WEAK, HUMAN)),
    "Reliability": Reliability(WEAK, VERDICT),
    "Alike": Alike(WEAK, WeakLabels(REWARD_HEAD, SPLIT.unlabeled)),
}


def package_classes() -> list[type]:
    """All classes of the package."""
    found: dict[type, None] = {}
    for info in pkgutil.walk_packages(weakteach.__path__, "weakteach."):
        module = importlib.import_module(info.name)
        defined = inspect.getmembers(module, inspect.isclass)
        found |= {kind: None for _, kind in defined if kind.__module__ == info.name}
    return list(found)


CLASSES = package_classes()
STEP_CLASSES = [c for c in CLASSES if issubclass(c, Step) and not inspect.isabstract(c)]


def identity_classes() -> list[type]:
    """The classes of steps, and of the values that their fields may hold, however deep."""
    found: dict[type, None] = {}
    waiting: list[object] = list(STEP_CLASSES)
    while waiting:
        hint = waiting.pop()
        if typing.get_origin(hint) in (tuple, typing.Union, types.UnionType):
            waiting += typing.get_args(hint)
        elif getattr(hint, "_is_protocol", False):
            names = {n for n in (*vars(hint), *inspect.get_annotations(hint)) if n[0] != "_"}
            waiting += [c for c in CLASSES if is_dataclass(c) and names <= set(dir(c))]
        elif isinstance(hint, type) and is_dataclass(hint) and hint not in found:
            found[hint] = None
            hints = typing.get_type_hints(hint)
            waiting += [hints[field.name] for field in fields(hint)]
    return sorted(found, key=lambda kind: kind.__name__)


def defaults_of(kind: type) -> dict[str, object]:
    """The version of a class and the defaults of those of its fields that are identity."""
    defaults = {}
    for field in fields(kind):
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        if default is not MISSING and field.metadata.get("identity", True):
            defaults[field.name] = jsonable(default)
    return {"version": getattr(kind, "VERSION", 1), **defaults}


IDENTITY_CLASSES = identity_classes()


def test_every_class_of_steps_has_a_pin():
    pinned = {type(step) for step in STEPS.values()}
    missing = [kind.__name__ for kind in STEP_CLASSES if kind not in pinned]
    assert not missing, f"Add a step of {missing} to STEPS, and its fingerprint to {PINS.name}"


@pytest.mark.parametrize("name", STEPS)
def test_a_step_has_the_fingerprint_that_its_artifacts_lie_under(name):
    pinned, step = json.loads(PINS.read_text())["fingerprints"].get(name), STEPS[name]
    assert step.fingerprint == pinned, (
        f"The fingerprint of {name} has changed, so that stores compute such steps anew, and all "
        "that is made from them. If that was not meant: give a new field a default that stands for "
        "what was done before, and take back a renamed class or field. If it was meant (a VERSION "
        f"was raised): put {step.fingerprint!r} into {PINS.name}, and a line into the CHANGELOG"
    )


@pytest.mark.parametrize("kind", IDENTITY_CLASSES, ids=lambda kind: kind.__name__)
def test_the_defaults_of_a_class_are_those_of_its_version(kind):
    pinned = json.loads(PINS.read_text())["defaults"].get(kind.__name__, {})
    now = defaults_of(kind)
    changed = [name for name in pinned if name != "version" and now.get(name) != pinned[name]]
    assert not changed or now["version"] > pinned["version"], (
        f"A default of {kind.__name__} has changed ({', '.join(changed)}), but defaults do not "
        "enter fingerprints: artifacts that the old one made would be taken for the new one's. "
        f"Raise VERSION of {kind.__name__} to {pinned['version'] + 1}"
    )
    assert now == pinned, (
        f"{kind.__name__} has new defaults, of a new field or of its new VERSION: if they are "
        f'meant, put "{kind.__name__}": {json.dumps(now)} into {PINS.name}'
    )


def test_no_field_hides_a_part_of_an_identity():
    for kind in IDENTITY_CLASSES:
        own = ("step", "version") if issubclass(kind, Step) else ("class", "version")
        assert not set(own) & {field.name for field in fields(kind)}, kind


def test_no_step_reads_artifacts_but_through_its_fields():
    for kind in STEP_CLASSES:
        own = {"inputs", "identity", "parameters", "fingerprint"} & set(vars(kind))
        assert not own, f"{kind.__name__} defines {own}, which follow from the fields alone"


@pytest.mark.parametrize(
    ("make", "reads"),
    [
        (lambda: Verdicts(RESPONSES, RESPONSES, REWARD_JUDGE), GoldReward),
        (lambda: PairVerdicts(HUMAN, REWARD_JUDGE), GoldLabels),
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
    judge = ChatJudge(CHAT)
    assert Verdicts(RESPONSES, RESPONSES, judge).inputs == (RESPONSES,)
    assert PairVerdicts(HUMAN, judge).inputs == (HUMAN,)
