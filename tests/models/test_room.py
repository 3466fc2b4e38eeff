"""Room on the nodes of a cluster, and what waits for it."""

import threading

import pytest

from weakteach.artifacts.store import Store
from weakteach.models import room
from weakteach.models.resources import Resources
from weakteach.models.room import fits, waits_told

L4 = {"CPU": 8.0, "GPU": 1.0, "accelerator_type:L4": 1.0}
A100 = {"CPU": 2.5, "GPU": 2.0, "accelerator_type:A100": 1.0}


@pytest.mark.parametrize(
    ("free", "resources", "most"),
    [
        ([L4, A100], Resources(gpus=1), 3),
        ([L4, A100], Resources(gpus=1, gpu_type="A100"), 2),
        ([L4, A100], Resources(gpus=1, gpu_type="H100"), 0),
        ([L4, A100], Resources(gpus=0.5, gpu_type="L4"), 2),
        # A GPU on one node and a core on another make no worker.
        ([{"CPU": 8.0}, {"GPU": 1.0}], Resources(gpus=1), 0),
        ([{"CPU": 8.0}, {"CPU": 1.5}], Resources(cpus=1), 9),
        ([{"CPU": 0.5}] * 9, Resources(cpus=1), 0),
        ([{"CPU": 0.3}], Resources(cpus=0.1), 3),
        ([], Resources(), 0),
    ],
)
def test_each_worker_needs_all_that_it_takes_on_one_node(free, resources, most):
    assert fits(free, resources, most)
    assert not fits(free, resources, most + 1)


def test_what_takes_nothing_has_room_anywhere():
    assert fits([], Resources(cpus=0), 100)


class Cluster:
    """Counts how often it is asked for room, and fails to answer at first."""

    def __init__(self, has_room):
        self.has_room, self.asked, self.looked = has_room, 0, threading.Condition()

    def __call__(self):
        with self.looked:
            self.asked += 1
            self.looked.notify_all()
        if self.asked == 1:
            raise OSError("not now")
        return self.has_room

    def wait_for(self, times):
        with self.looked:
            assert self.looked.wait_for(lambda: self.asked >= times, timeout=20)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.01)


def test_work_waits_until_its_workers_are_there_and_says_so_once_more_then(tmp_path, quick):
    told, began = [], threading.Event()

    def tell(waits):
        told.append(waits)
        if not waits:
            began.set()

    cluster = Cluster(has_room=False)
    with waits_told(Store(tmp_path), str(tmp_path), tell, cluster) as sign:
        cluster.wait_for(4)
        sign.put()
        assert began.wait(20)
        count = len(told)
    assert told == [True] * (count - 1) + [False]
    assert count >= 2
    assert not list(tmp_path.iterdir())  # the sign is gone


def test_with_room_work_only_starts(tmp_path, quick):
    told, cluster = [], Cluster(has_room=True)
    with waits_told(Store(tmp_path), str(tmp_path), told.append, cluster):
        cluster.wait_for(3)
    assert told == []


def test_nobody_is_told_and_nothing_asked_where_nobody_listens(tmp_path, quick):
    def asked():
        raise AssertionError

    with waits_told(Store(tmp_path), str(tmp_path), None, asked) as sign:
        assert sign is None
