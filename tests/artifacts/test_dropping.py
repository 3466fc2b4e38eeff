"""The weights of a model go while its record stays, and come back when somebody reads them."""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from weakteach.artifacts.computing import obtain, obtain_each
from weakteach.artifacts.dropping import at_hand, drop_bulk
from weakteach.artifacts.errors import StepError, StorageError
from weakteach.artifacts.step import Step, walk
from weakteach.artifacts.store import DROPPED, Store

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Base(Step):
    """Writes weights and something small, and a line to a log each time."""

    log: str

    @property
    def bulk(self):
        return ("*.safetensors",)

    def compute(self, workspace):
        with open(self.log, "a") as file:
            file.write("computed\n")
        (workspace.out / WEIGHTS).write_bytes(b"weights")
        (workspace.out / "metrics.jsonl").write_text("{}\n")
        return {"rows": 3}


@dataclass(frozen=True)
class Adapter(Step):
    start: Base

    def compute(self, workspace):
        weights = (workspace.store.local(self.start) / WEIGHTS).read_bytes()
        (workspace.out / WEIGHTS).write_bytes(weights[:1])
        return {}


@dataclass(frozen=True)
class Answers(Step):
    """Reads the adapter, and what it lies on."""

    policy: Adapter
    seed: int = 0

    def compute(self, workspace):
        for step in (self.policy, self.policy.start):
            assert (workspace.store.local(step) / WEIGHTS).read_bytes()
        return {}


@dataclass(frozen=True)
class Score(Step):
    answers: Answers

    def compute(self, workspace):
        return {}


def nobody():
    return set()


@pytest.fixture
def base(tmp_path):
    return Base(str(tmp_path / "log"))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def done(store, base):
    """A study that is done."""
    target = Score(Answers(Adapter(base)))
    obtain(store, target)
    return target


def files(store, step):
    return {path.name for path in Path(store.path(step)).iterdir()}


def times(base):
    return len(Path(base.log).read_text().splitlines())


def test_what_a_step_may_read_are_its_inputs_and_theirs(base):
    answers = Answers(Adapter(base))
    assert answers.read_in_bulk == answers.policy.read_in_bulk == (base,)
    assert Score(answers).read_in_bulk == ()


def test_weights_go_the_record_stays_and_what_is_done_stays_done(store, base, done):
    record = store.record(base)
    assert drop_bulk(store, [base], nobody) == {base: len(b"weights")}
    assert files(store, base) == {"record.json", "metrics.jsonl", DROPPED}
    assert Path(store.path(base), DROPPED).read_text() == f'["{WEIGHTS}"]'
    assert store.record(base) == record
    assert at_hand(store, walk([done])) == {step.fingerprint for step in walk([done])}
    obtain(store, done)
    assert times(base) == 1
    assert drop_bulk(store, [base], nobody) == {}
    with pytest.raises(StepError, match="has dropped its weights"):
        store.local(base)


def test_who_reads_them_later_has_them_computed_anew_with_the_same_bytes(store, base, done):
    drop_bulk(store, [base], nobody)
    later = Answers(done.answers.policy, seed=1)
    missing = {s.fingerprint for s in walk([later])} - at_hand(store, walk([later]))
    assert missing == {base.fingerprint, later.fingerprint}
    computed = []
    obtain_each(store, [later], computed=computed.append)
    assert computed == [base, later]
    assert files(store, base) == {"record.json", "metrics.jsonl", WEIGHTS}
    assert Path(store.path(base), WEIGHTS).read_bytes() == b"weights"
    assert store.local(base)


def test_what_reads_no_weights_needs_none(store, base, done):
    drop_bulk(store, [base], nobody)
    Path(store.path(done), "record.json").unlink()
    assert at_hand(store, walk([done])) == {step.fingerprint for step in walk([done.answers])}
    obtain(store, done)
    assert times(base) == 1


def test_one_who_asks_for_the_model_itself_gets_it_whole(store, base, done):
    drop_bulk(store, [base], nobody)
    obtain(store, base)
    assert WEIGHTS in files(store, base)


def test_what_somebody_reads_or_computes_stays(store, base, done):
    before = files(store, base)
    seen = []

    def read():
        seen.append(files(store, base))
        return {base.fingerprint}

    assert drop_bulk(store, [base], read) == {}
    assert seen == [before | {DROPPED}]  # marked first: who begins now sees it

    def fails():
        raise StorageError("no answer")

    with pytest.raises(StorageError):
        drop_bulk(store, [base], fails)
    with store.lease("Base", base.fingerprint, 0.0):
        assert drop_bulk(store, [base], nobody) == {}
    assert files(store, base) == before
    assert drop_bulk(store, [Base("never computed")], nobody) == {}


def test_one_killed_between_mark_and_deletion_loses_nothing(store, base, done):
    mark = Path(store.path(base), DROPPED)
    mark.write_text("[]")
    obtain(store, Answers(done.answers.policy, seed=1))
    assert (times(base), mark.exists()) == (2, False)
    mark.write_text("")
    assert drop_bulk(store, [base], lambda: {base.fingerprint}) == {base: len(b"weights")}
    assert files(store, base) == {"record.json", "metrics.jsonl", DROPPED}


def test_weights_that_go_as_a_step_starts_are_there_before_it_reads_them(tmp_path, base, done):
    plain = Store(tmp_path / "store")
    later = Answers(done.answers.policy, seed=1)
    dropped = []

    @contextmanager
    def lease(key, wait):
        of_step = key.rpartition(" ")[2]
        with plain.lease(*of_step.split("-"), wait):
            if of_step == f"Answers-{later.fingerprint}" and not dropped:
                dropped.append(drop_bulk(plain, [base], nobody))
            yield

    obtain(Store(tmp_path / "store", lease), later)
    assert dropped == [{base: len(b"weights")}]
    assert times(base) == 2
    assert not list((tmp_path / "store").rglob(".*.stage"))
