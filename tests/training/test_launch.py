"""A training whose workers have no room yet says that it waits."""

import sys
import time

import pytest
import ray
import ray.cloudpickle

from weakteach.artifacts.signs import Sign
from weakteach.artifacts.store import Store
from weakteach.models import room
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model
from weakteach.training.launch import launch
from weakteach.training.recipes import Schedule, SftRecipe
from weakteach.training.trainer import GroupSigns
from weakteach.training.worker import TrainingJob

# Workers cannot import this module, so what they run of it is sent whole.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def test_a_group_has_its_sign_while_it_has_workers_and_loses_it_with_them(tmp_path):
    sign = Sign(Store(tmp_path), str(tmp_path / "sign"))
    group = GroupSigns(sign)
    group.before_worker_group_start(None)
    assert not sign.is_there
    group.after_worker_group_start(None)
    assert sign.is_there
    group.before_worker_group_start(None)  # anew, after a loss
    assert not sign.is_there
    nowhere = Sign(Store(tmp_path), str(tmp_path / "no" / "folder"))
    GroupSigns(nowhere).after_worker_group_start(None)


def trained(config):
    return {"updates": 3}


@pytest.mark.slow
def test_a_training_waits_until_its_workers_have_room(tmp_path, ray_here, monkeypatch):
    """Something else has all of the cluster until it is told that the training waits."""
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.2)
    taken, told = tmp_path / "taken", []

    @ray.remote(num_cpus=ray.cluster_resources()["CPU"])
    def hog():
        taken.touch()
        while taken.exists():
            time.sleep(0.02)

    busy = hog.remote()
    while not taken.exists():
        time.sleep(0.02)

    def progress(done, total, tokens=0, waits=False):
        told.append((done, total, waits))
        if waits:
            taken.unlink(missing_ok=True)

    store, resources, folder = Store(tmp_path), Resources(train_workers=1), str(tmp_path)
    recipe, start = SftRecipe(Schedule(1e-3, batch=16)), find_model("opt-45k")
    job = TrainingJob(store, start, "", "", recipe, 0, "float32", resources, folder, folder)
    facts = launch(trained, job, "run", f"file://{folder}/train", folder, progress)
    ray.get(busy)
    assert facts == {"updates": 3}
    assert told[0] == (0, 0, False)
    assert told[1] == told[-2] == (0, 0, True)
    assert told[-1] == (0, 0, False)
    assert not list(tmp_path.glob(".*.begun"))
