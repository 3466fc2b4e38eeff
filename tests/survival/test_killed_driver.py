"""Nothing of a driver that was killed stays on a cluster that lives on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

# Ray's own, one for as long as the cluster lives: it holds no device.
OF_RAY = "_AutoscalingCoordinatorActor"


def wait_forever(config):
    Path(config["job"].run_folder, "training").touch()
    time.sleep(3600)


def drive(address, folder):
    import ray

    from weakteach.artifacts.store import Store
    from weakteach.models.resources import Resources
    from weakteach.models.spec import find_model
    from weakteach.run.cluster import start_ray
    from weakteach.training.launch import launch
    from weakteach.training.recipes import Schedule, SftRecipe
    from weakteach.training.worker import TrainingJob

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    resources = Resources(train_workers=1)
    start_ray(address, 1, resources, verbose=False)
    start = find_model("opt-45k")
    recipe = SftRecipe(Schedule(1e-3, batch=16))
    job = TrainingJob(Store(folder), start, "", "", recipe, 0, "float32", resources, folder, folder)
    launch(wait_forever, job, "run", f"file://{folder}/train")


def kill_a_driver(folder):
    """Prints the classes of the actors that were there, and of those that stay."""
    import ray
    from ray.util.state import list_actors

    context = ray.init(num_cpus=2, include_dashboard=True)
    address = context.address_info["address"]
    alive: Any = [("state", "=", "ALIVE")]

    def actors():
        names = (a.class_name for a in list_actors(address, filters=alive))
        return sorted(name for name in names if name != OF_RAY)

    driver = subprocess.Popen([sys.executable, __file__, "drive", address, folder])
    while not Path(folder, "training").exists():
        assert driver.poll() is None
        time.sleep(0.2)
    before = actors()
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 120
    while (after := actors()) and time.monotonic() < deadline:
        time.sleep(0.5)
    free = ray.available_resources().get("CPU", 0.0)
    print(json.dumps([before, after, free]))


@pytest.fixture
def another_ray():
    """On the same host."""
    up = "import ray; ray.init(num_cpus=1, include_dashboard=False); print('up'); input()"
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", up], **options) as process:
        assert process.stdout.readline() == "up\n"
        yield
        process.communicate("\n")


@pytest.mark.slow
@pytest.mark.timeout(900)  # for a machine that does much else
def test_a_killed_driver_leaves_neither_an_actor_nor_a_device_taken(another_ray, tmp_path):
    run = subprocess.run(
        [sys.executable, __file__, "kill", str(tmp_path)], capture_output=True, text=True,
        env={**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    before, after, free = json.loads(run.stdout.strip().splitlines()[-1])
    assert "EndingCleaner" in before
    assert after == []
    assert free == 2


WATCHES_THE_DEAD = """
import time
from ray.train.v2._internal.execution.controller import placement_group_cleaner as of_ray
from weakteach.training.trainer import EndingCleaner

of_ray.is_actor_alive = lambda **_: False
EndingCleaner("0123", 0.01, 1.0, 1.0).start_monitoring()
time.sleep(60)
print("still here")
"""


def test_what_watches_a_controller_ends_with_it():
    command = [sys.executable, "-c", WATCHES_THE_DEAD]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "drive":
        drive(*arguments)
    else:
        kill_a_driver(*arguments)
