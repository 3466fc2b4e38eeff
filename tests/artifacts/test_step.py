import json
import subprocess
import sys
from dataclasses import dataclass, field, make_dataclass
from enum import Enum
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakteach.artifacts.identity import EXECUTION, jsonable
from weakteach.artifacts.step import Step, walk


class Color(Enum):
    RED = 1


@dataclass(frozen=True)
class Recipe:
    rate: float
    stages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source(Step):
    seed: int
    path: str = field(default="", compare=False, metadata=EXECUTION)

    def compute(self, workspace):
        return {}


@dataclass(frozen=True)
class Train(Step):
    source: Source
    recipe: Recipe
    share: Fraction = Fraction(1, 2)
    color: Color = Color.RED

    def compute(self, workspace):
        return {}


@dataclass(frozen=True)
class Both(Step):
    parts: tuple[Train, ...]

    def compute(self, workspace):
        return {}


def test_execution_fields_do_not_enter_the_fingerprint():
    assert Source(1, "/a").fingerprint == Source(1, "/b").fingerprint
    assert Source(1) == Source(1, "/b")
    assert Source(1).fingerprint != Source(2).fingerprint


def test_version_enters_the_fingerprint_of_a_step_and_of_its_readers():
    before = Train(Source(1), Recipe(0.1))
    other = Train(Source(2), Recipe(0.1))
    newer = type("Source", (Source,), {"VERSION": 2})
    after = Train(newer(1), Recipe(0.1))
    assert newer(1).fingerprint != Source(1).fingerprint
    assert after.fingerprint != before.fingerprint
    assert other.fingerprint == Train(Source(2), Recipe(0.1)).fingerprint


def test_a_new_field_at_its_default_keeps_the_fingerprint():
    namespace = {"compute": lambda self, workspace: {}}
    old = make_dataclass("Grown", [("a", int)], bases=(Step,), frozen=True, namespace=namespace)
    new = make_dataclass(
        "Grown",
        [("a", int), ("b", float, field(default=0.5)), ("c", Recipe, field(default=Recipe(1.0)))],
        bases=(Step,),
        frozen=True,
        namespace=namespace,
    )
    assert old(1).fingerprint == new(1).fingerprint
    assert new(1, b=0.6).fingerprint != old(1).fingerprint


@dataclass(frozen=True)
class Tuned(Step):
    recipe: Recipe = Recipe(1.0)
    more: tuple[Recipe, ...] = (Recipe(2.0),)

    def compute(self, workspace):
        return {}


def test_a_raised_version_of_a_nested_value_enters_the_fingerprint(monkeypatch):
    steps = [lambda: Tuned(), lambda: Train(Source(1), Recipe(0.1)), lambda: Both((steps[1](),))]
    before = [make().fingerprint for make in steps]
    monkeypatch.setattr(Recipe, "VERSION", 1, raising=False)
    assert [make().fingerprint for make in steps] == before
    monkeypatch.setattr(Recipe, "VERSION", 2)
    after = [make().fingerprint for make in steps]
    assert not set(after) & set(before)
    assert Source(1).fingerprint == Train(Source(1), Recipe(0.1)).source.fingerprint
    assert Tuned().parameters["recipe"]["version"] == 2


def test_inputs_are_found_in_nested_values_and_walked_before_their_readers():
    first, second = Train(Source(1), Recipe(0.1)), Train(Source(1), Recipe(0.2))
    both = Both((first, second))
    assert both.inputs == (first, second)
    assert walk([both, first]) == [Source(1), first, second, both]


@pytest.mark.parametrize("value", [{"a": 1}, {1, 2}, [1], object(), len])
def test_what_has_no_stable_identity_is_refused(value):
    with pytest.raises(TypeError, match="cannot be a parameter"):
        jsonable(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="cannot be a parameter"):
        jsonable(value)


NUMBERS = st.one_of(
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.fractions(),
)


@given(NUMBERS, NUMBERS)
def test_numbers_have_one_form_exactly_when_they_are_equal(a, b):
    assert (jsonable(a) == jsonable(b)) == (a == b)
    assert json.loads(json.dumps(jsonable(a))) == jsonable(a)


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.lists(st.text()))
def test_equal_steps_have_equal_fingerprints(seed, rate, stages):
    make = lambda: Train(Source(seed), Recipe(rate, tuple(stages)))  # noqa: E731
    assert make().fingerprint == make().fingerprint


def test_the_fingerprint_is_the_same_in_another_process():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_step as t;"
        "from fractions import Fraction;"
        "print(t.Train(t.Source(3), t.Recipe(0.1, ('a', 'é')), Fraction(1, 3)).fingerprint)"
    )
    here = Train(Source(3), Recipe(0.1, ("a", "é")), Fraction(1, 3)).fingerprint
    folder = __file__.rsplit("/", 1)[0]
    run = [sys.executable, "-c", program, folder]
    other = subprocess.run(run, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == here == "ce65e1d1e64112185f32"
