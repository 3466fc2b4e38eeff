"""Every kind of process sees the devices that it was given and no others.

On a host with two GPUs, which exist in Ray's eyes alone.
"""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from weakteach.artifacts.errors import UserError
from weakteach.labeling.shards import ChunkWork
from weakteach.models.resources import Resources

PAIRS = 100
VISIBLE = "CUDA_VISIBLE_DEVICES"


class WhichDevices(ChunkWork):
    """Tells for each row the devices that its process sees, in place of a label."""

    def load(self):
        return os.environ["CUDA_VISIBLE_DEVICES"]

    def process(self, devices, rows):
        return rows.append_column("devices", [[devices] * len(rows)])


def tell(config):
    """A training that tells the devices that its process sees."""
    from weakteach.models.process import prepare_process

    prepare_process(threads=1)
    return {"devices": os.environ["CUDA_VISIBLE_DEVICES"]}


def labeling(storage, resources):
    from weakteach.artifacts.store import Store
    from weakteach.labeling.shards import Stream
    from weakteach.labeling.stream import stream_chunks

    shards = f"{storage}/shards-{resources.label_actors}-{resources.gpus}"
    stream = Stream(Store(storage), f"{storage}/pairs.parquet", shards, WhichDevices())
    rows = [row for table in stream_chunks(stream, resources).tables() for row in table.to_pylist()]
    assert [row["pair_id"] for row in rows] == [str(n) for n in range(PAIRS)]
    (devices,) = {row["devices"] for row in rows}
    return devices


def training(storage, resources):
    from weakteach.artifacts.store import Store
    from weakteach.models.spec import find_model
    from weakteach.training.launch import launch
    from weakteach.training.worker import TrainingJob

    store, start = Store(storage), find_model("opt-45k")
    job = TrainingJob(store, start, "", "", None, 0, "float32", resources, storage, storage)
    name = f"run-{resources.train_workers}-{resources.gpus}"
    return launch(tell, job, name, f"file://{storage}/train")["devices"]


def trial(storage, resources):
    from ray import tune

    def train(config):
        tune.report({"devices": training(storage, resources)})

    run = tune.RunConfig(storage_path=f"{storage}/tune", verbose=0)
    trainable = tune.with_resources(train, resources.of_a_trial())
    return tune.Tuner(trainable, run_config=run).fit()[0].metrics["devices"]


def on_two_gpus(storage):
    import ray

    from weakteach.run.cluster import start_ray

    init = ray.init
    ray.init = lambda **options: init(num_gpus=2, **options)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    start_ray(None, 2, Resources(), verbose=False)
    ids = pa.table({"pair_id": [str(n) for n in range(PAIRS)]})
    pq.write_table(ids, f"{storage}/pairs.parquet")
    seen = {
        "without": [
            labeling(storage, Resources()),
            trial(storage, Resources()),
            training(storage, Resources(train_workers=1)),
        ],
        "with": [
            labeling(storage, Resources(gpus=1)),
            labeling(storage, Resources(gpus=1, label_actors=1)),
            trial(storage, Resources(gpus=1)),
        ],
        "driver": [training(storage, Resources())],
    }
    print(json.dumps(seen))


@pytest.mark.slow
def test_each_kind_of_process_sees_the_gpu_that_it_was_given_alone(tmp_path):
    run = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "0,1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout.strip().splitlines()[-1])
    assert seen["without"] == ["", "", ""]
    assert all(devices in ("0", "1") for devices in seen["with"])
    assert seen["driver"] == ["0"]


@pytest.mark.parametrize(
    ("visible", "kept"), [(None, "0"), ("2,3", "2"), ("GPU-a,GPU-b", "GPU-a"), ("1", "1"), ("", "")]
)
def test_a_process_outside_of_ray_computes_on_the_first_gpu_that_it_sees(
    monkeypatch, visible, kept
):
    from weakteach.models.process import prepare_process

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    prepare_process(threads=1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == kept


@pytest.fixture
def two_gpus(monkeypatch):
    """A host with two GPUs in torch's eyes, of which a process sees those that it is let see."""
    import torch
    from accelerate.state import AcceleratorState

    def count():
        return len([one for one in os.environ.get(VISIBLE, "0,1").split(",") if one])

    monkeypatch.setattr(torch.cuda, "device_count", count)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    for module in (torch.cuda, torch.accelerator):
        monkeypatch.setattr(module, "is_available", lambda: count() > 0)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def gpus_of_a_training(folder):
    """As TRL counts them; it refuses more than one in a process."""
    from trl.trainer.sft_config import SFTConfig

    from weakteach.artifacts.store import Store
    from weakteach.models.memory import Fit
    from weakteach.models.spec import find_model
    from weakteach.training.recipes import Schedule
    from weakteach.training.worker import TrainingJob, trainer_arguments

    where, start = str(folder), find_model("opt-45k")
    job = TrainingJob(Store(folder), start, "", "", None, 0, "float32", Resources(), where, where)
    return SFTConfig(**trainer_arguments(job, Schedule(1e-3, batch=4), Fit())).n_gpu


@pytest.mark.parametrize(("visible", "gpus"), [(None, 1), ("0,1", 1), ("1", 1), ("", 0)])
def test_a_training_counts_one_gpu_where_its_host_has_two(
    tmp_path, monkeypatch, two_gpus, visible, gpus
):
    from weakteach.models.process import prepare_process

    monkeypatch.delenv(VISIBLE, raising=False)
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    if visible != "1" and gpus:
        assert gpus_of_a_training(tmp_path) == 2  # what TRL would refuse
    prepare_process(threads=1)
    assert gpus_of_a_training(tmp_path) == gpus


def test_a_worker_of_several_gpus_is_refused_as_it_would_use_one():
    with pytest.raises(UserError, match="give each 1, and have more workers"):
        Resources(gpus=2)


if __name__ == "__main__":
    on_two_gpus(*sys.argv[1:])
