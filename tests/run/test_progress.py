"""What follows a study outlives errors of the storage, and asks it rarely."""

import io
import threading
from dataclasses import dataclass

import pytest
from rich.console import Console

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.run import progress
from weakteach.run.progress import Doing, Existing, Following, Listing, doing_of
from weakteach.run.terminal import following


@dataclass(frozen=True)
class Text(Step):
    text: str

    def compute(self, workspace):
        return {}


A, B, C = Text("a"), Text("b"), Text("c")


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


class Bucket(Store):
    """A store that is listed like a bucket, counts how often, and fails when told to."""

    is_local = False
    listed, error = 0, None

    def existing(self, steps):
        self.listed += 1
        if self.error:
            raise self.error
        return super().existing(steps)


def test_steps_that_trials_tell_exist_without_a_listing_and_others_by_a_rare_one(tmp_path, clock):
    bucket = Bucket(tmp_path)
    known = Existing(bucket, [A, B, C], {A.fingerprint})
    known.add(B.fingerprint)
    for _ in range(100):
        assert known.look() == {A.fingerprint, B.fingerprint}
        clock.now += 0.5
    assert bucket.listed == 0
    obtain(Store(tmp_path), C)  # by another study
    clock.now += Listing.SECONDS_OF_A_BUCKET
    assert known.look() == {A.fingerprint, B.fingerprint, C.fingerprint}
    known.look()
    assert bucket.listed == 1


def test_a_bucket_that_does_not_answer_is_asked_again_later(tmp_path, clock):
    bucket = Bucket(tmp_path)
    known = Existing(bucket, [A], set())
    obtain(Store(tmp_path), A)
    bucket.error = OSError("SlowDown")
    clock.now += Listing.SECONDS_OF_A_BUCKET
    assert known.look() == known.look() == set()
    assert bucket.listed == 1
    bucket.error = None
    clock.now += Listing.SECONDS_OF_A_BUCKET
    assert known.look() == {A.fingerprint}


def test_a_storage_that_takes_long_to_list_is_listed_for_a_small_share_of_the_time(tmp_path, clock):
    listing = Listing(Store(tmp_path))
    assert listing.due
    began, clock.now = clock.now, clock.now + 10.0
    listing.done(began)
    clock.now += 199.0
    assert not listing.due
    clock.now += 1.0
    assert listing.due


def test_an_error_while_following_ends_neither_the_study_nor_the_following():
    looks, again = [], threading.Event()

    def look():
        looks.append(1)
        if len(looks) < 3:
            raise OSError("not now")
        again.set()
        return 1

    with Following(Console(quiet=True), look, Doing(), steps=2, every=0.01):
        assert again.wait(10)


def test_what_says_nothing_new_is_shown_to_wait(clock):
    doing = Doing()
    doing.say("1", "Sft 3/9")
    doing.say("2", "WeakLabels 0/200")
    clock.now += 300.0
    doing.say("1", "Sft 4/9")
    doing.say("2", "WeakLabels 0/200")
    assert str(doing) == "Sft 4/9, WeakLabels 0/200 (nothing new for 5 min)"
    doing.say("2", "")
    assert str(doing) == "Sft 4/9"


def test_a_step_that_waits_for_a_device_says_so_and_for_how_long(clock):
    doing = Doing()
    doing.say("1", doing_of(A, 0, 0, True))
    doing.say("2", doing_of(B, 3, 200, True))
    clock.now += 120.0
    doing.say("2", doing_of(B, 3, 200, False))
    assert str(doing) == "Text waits for a device (nothing new for 2 min), Text 3/200"
    doing.say("1", doing_of(A, 0, 0, False))
    assert str(doing) == "Text, Text 3/200"


def test_a_line_of_one_step_says_that_it_waits_and_counts_no_rate_meanwhile():
    console = Console(width=200, file=io.StringIO(), force_terminal=True)

    def shown():
        text = console.file.getvalue()
        console.file.seek(0)
        console.file.truncate()
        return text

    with following(console, "labeling") as told:
        told(0, 0, waits=True)
        assert "labeling, waits for a device" in shown()
        told(10, 200)
    assert "waits" not in shown().rpartition("10/200")[2]
