"""Arms as runs of an experiment tracker: TensorBoard, MLflow, Weights & Biases.

A run is named like its arm; its parameters are the arm's settings, its metrics what was measured
of the arm in the end, and on the way the number of its steps that were computed. Submitted again, a
study goes on with the same runs. Files lie in the study's folder.
"""

import hashlib
import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from pyarrow import fs
from ray.tune import Callback
from rich.console import Console

from weakteach.artifacts.errors import UserError
from weakteach.artifacts.store import Store
from weakteach.results.table import numbers_of
from weakteach.study.arms import Arm
from weakteach.study.manifest import study_folder

LOGGER = logging.getLogger(__name__)
INSTALL = "pip install 'weakteach[trackers]'"


class TrackerError(UserError):
    """A tracker that is not installed or cannot be reached."""


class Tracker(Protocol):
    """Keeps one run per arm, by the arm's name."""

    def begin(self, run: str, settings: Mapping[str, str]) -> None: ...

    def log(self, run: str, numbers: Mapping[str, float], steps: int) -> None: ...

    def end(self, run: str, numbers: Mapping[str, float], failed: bool) -> None:
        """``numbers`` are the run's results."""


class TensorBoard:
    """Event files under ``tensorboard/<arm>/``."""

    def __init__(self, study: str, store: Store, folder: Path) -> None:
        require("tensorboard", "tensorboardX")
        self._folder = folder / "tensorboard"
        self._writers: dict[str, Any] = {}
        self._settings: dict[str, Mapping[str, str]] = {}

    def begin(self, run: str, settings: Mapping[str, str]) -> None:
        from tensorboardX import SummaryWriter

        self._writers[run] = SummaryWriter(str(self._folder / re.sub(r"[^\w.()=-]+", "_", run)))
        self._settings[run] = settings

    def log(self, run: str, numbers: Mapping[str, float], steps: int) -> None:
        for name, value in numbers.items():
            self._writers[run].add_scalar(name, value, steps)
        self._writers[run].flush()

    def end(self, run: str, numbers: Mapping[str, float], failed: bool) -> None:
        from tensorboardX.summary import hparams

        self.log(run, numbers, 0)
        writer = self._writers.pop(run)
        # Not add_hparams, which makes a run of its own for them.
        for summary in hparams(dict(self._settings.pop(run)), dict(numbers)):
            writer.file_writer.add_summary(summary)
        writer.close()


class MLflow:
    """Runs of an experiment named like the study, on the server that MLFLOW_TRACKING_URI names, or
    in ``mlflow.db``."""

    def __init__(self, study: str, store: Store, folder: Path) -> None:
        require("mlflow", "mlflow", "sqlalchemy", "alembic")
        given = os.environ.get("MLFLOW_TRACKING_URI")
        if not given and not store.is_local:
            raise TrackerError(
                "--tracker mlflow keeps its runs in a local file, which a bucket has no place for: "
                "name a server in the environment variable MLFLOW_TRACKING_URI"
            )
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        uri = given or f"sqlite:///{folder}/mlflow.db"
        try:
            self._client: Any = MlflowClient(uri, None if given else uri)
            found = self._client.get_experiment_by_name(study)
            place = None if given else (folder / "mlflow").as_uri()
            self._experiment = (
                found.experiment_id if found else self._client.create_experiment(study, place)
            )
        except Exception as error:  # clients of databases and servers raise dozens of classes
            LOGGER.info("MLflow", exc_info=error)
            raise TrackerError(
                f"MLflow at {urlsplit(uri).hostname or uri} cannot be used "
                f"({type(error).__name__}): check MLFLOW_TRACKING_URI"
            ) from error
        self._runs: dict[str, str] = {}

    def begin(self, run: str, settings: Mapping[str, str]) -> None:
        name = run.replace("'", "")
        found = self._client.search_runs([self._experiment], f"run_name = '{name}'")
        if found:
            self._runs[run] = found[0].info.run_id
            self._client.update_run(self._runs[run], status="RUNNING")
        else:
            self._runs[run] = self._client.create_run(self._experiment, run_name=name).info.run_id
        for key, value in settings.items():
            self._client.log_param(self._runs[run], key, value)

    def log(self, run: str, numbers: Mapping[str, float], steps: int) -> None:
        for key, value in numbers.items():
            self._client.log_metric(self._runs[run], key, value, step=steps)

    def end(self, run: str, numbers: Mapping[str, float], failed: bool) -> None:
        self.log(run, numbers, 0)
        self._client.set_terminated(self._runs.pop(run), "FAILED" if failed else "FINISHED")


class WandB:
    """Runs of a project named like the study; with WANDB_MODE=offline under ``wandb/``."""

    def __init__(self, study: str, store: Store, folder: Path) -> None:
        require("wandb", "wandb")
        local = os.environ.get("WANDB_MODE", "online") in ("offline", "disabled", "dryrun")
        if not local and not os.environ.get("WANDB_API_KEY"):
            raise TrackerError(
                "--tracker wandb needs a key in the environment variable WANDB_API_KEY, or "
                "WANDB_MODE=offline to keep runs in the study's folder"
            )
        self._study, self._storage, self._folder = study, store.url, folder
        self._is_local = local
        self._runs: dict[str, Any] = {}

    def begin(self, run: str, settings: Mapping[str, str]) -> None:
        import wandb

        whole = f"{self._storage} {self._study} {run}"
        self._runs[run] = wandb.init(
            project=os.environ.get("WANDB_PROJECT", self._study),
            name=run,
            id=hashlib.sha256(whole.encode()).hexdigest()[:16],
            resume=None if self._is_local else "allow",
            config=dict(settings),
            dir=str(self._folder),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )

    def log(self, run: str, numbers: Mapping[str, float], steps: int) -> None:
        self._runs[run].log(dict(numbers))

    def end(self, run: str, numbers: Mapping[str, float], failed: bool) -> None:
        self._runs[run].log(dict(numbers))
        self._runs.pop(run).finish(exit_code=int(failed))


TRACKERS: dict[str, Callable[[str, Store, Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}


def require(tracker: str, *modules: str) -> None:
    """Raise TrackerError if one of the modules is not installed."""
    if missing := [name for name in modules if find_spec(name) is None]:
        raise TrackerError(f"--tracker {tracker} needs {', '.join(missing)}: {INSTALL}")


class Tracking(Callback):
    """Tells trackers what becomes of the arms; as a callback of Ray Tune, while they run.

    Raises TrackerError for a tracker that cannot be used. One that fails later is told of on the
    console and left out from then on: the study matters more.
    """

    def __init__(
        self,
        names: Iterable[str],
        study: str,
        arms: Sequence[Arm],
        store: Store,
        console: Console,
    ) -> None:
        self._arms, self._store, self._console = arms, store, console
        self._target = study_folder(store, study)
        if store.is_local:
            self._folder = Path(self._target)
            self._folder.mkdir(parents=True, exist_ok=True)
        else:
            self._folder = Path(tempfile.mkdtemp(prefix="weakteach-trackers-"))
        try:
            self._trackers = {n: TRACKERS[n](study, store, self._folder) for n in set(names)}
        except TrackerError:
            with suppress(OSError):  # an empty folder would be a study that tells nothing
                self._folder.rmdir()
            raise
        self._open: set[str] = set()
        self._ended: set[str] = set()
        self._published = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a copy of its callbacks for a restore; open runs are ours

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._begin(self._arms[trial.config["arm"]])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        if result["step"]:
            arm, steps = self._arms[trial.config["arm"]], result["steps"]
            self._tell("log", arm.name, {"steps_computed": float(steps)}, steps)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._end(self._arms[trial.config["arm"]])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._end(self._arms[trial.config["arm"]])

    def close(self) -> None:
        """End the runs of all arms: of those, too, whose steps existed before, or that were
        interrupted."""
        for arm in self._arms:
            if arm.name not in self._ended:
                self._begin(arm)
                self._end(arm)
        if not self._store.is_local:
            shutil.rmtree(self._folder)

    def _begin(self, arm: Arm) -> None:
        if arm.name not in self._open:  # a trial that is tried again starts again
            self._open.add(arm.name)
            self._tell("begin", arm.name, settings_of(arm))

    def _end(self, arm: Arm) -> None:
        self._open.discard(arm.name)
        self._ended.add(arm.name)
        failed = len(self._store.existing(arm.targets)) < len(arm.targets)
        self._tell("end", arm.name, results_of(arm, self._store), failed)
        if not self._store.is_local:
            self._publish()

    def _tell(self, what: str, *arguments: Any) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                getattr(tracker, what)(*arguments)
            except Exception as error:
                LOGGER.info("tracker %s", name, exc_info=error)
                del self._trackers[name]
                line = f"--tracker {name} failed ({type(error).__name__}) and is left out from now"
                self._console.print(line, highlight=False, markup=False)

    def _publish(self) -> None:
        """Copy the files that changed to the study's folder."""
        for file in sorted(path for path in self._folder.rglob("*") if path.is_file()):
            if file.stat().st_mtime >= self._published:
                place = f"{self._target}/{file.relative_to(self._folder).as_posix()}"
                self._store.filesystem.create_dir(place.rpartition("/")[0], recursive=True)
                fs.copy_files(str(file), place, destination_filesystem=self._store.filesystem)
        self._published = max((p.stat().st_mtime for p in self._folder.rglob("*")), default=0.0)


def settings_of(arm: Arm) -> dict[str, str]:
    return {**asdict(arm.setting), "seed": str(arm.seed)}


def results_of(arm: Arm, store: Store) -> dict[str, float]:
    """What was measured of an arm, as ``<role>/<measure>/<by whom>``; the missing is left out."""
    found: dict[str, float] = {}
    for measure in arm.measures:
        if record := store.record_of(measure.step, measure.fingerprint):
            for name, value, *_ in numbers_of(measure.kind, record["facts"]):
                if value is not None and math.isfinite(value):
                    by = re.sub(r"[^\w.-]+", "_", measure.of)
                    found["/".join(filter(None, (measure.role, name, by)))] = value
    return found
