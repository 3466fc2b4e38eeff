"""Arms as runs of an experiment tracker: TensorBoard, MLflow, Weights & Biases.

A run is named like its arm. Its parameters are the arm's settings; its metrics are, on the way, the
number of the arm's steps that were computed and, in the end, what was measured of the arm. A study
that is submitted again goes on with the same runs. Files lie in the study's folder.

Ray's own callbacks write for TensorBoard and MLflow. They are told of arms and not of Tune's
trials: the only parameter of a trial is a number, its results are not those of the arm, and there
is no trial for an arm that is already computed.
"""

import hashlib
import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune import Callback
from ray.tune.logger import LoggerCallback, TBXLoggerCallback
from ray.tune.result import TRAINING_ITERATION
from rich.console import Console

from weakteach.artifacts.errors import StorageError, UserError
from weakteach.artifacts.store import Store
from weakteach.results.table import numbers_of
from weakteach.run.failures import reason
from weakteach.study.manifest import study_folder
from weakteach.study.measures import Arm

LOGGER = logging.getLogger(__name__)
# The tag of a run in MLflow that holds the URL of its study's storage.
STORAGE_TAG = "weakteach.storage"
INSTALL = "pip install 'weakteach[trackers]'"


class TrackerError(UserError):
    """A tracker that is not installed or cannot be reached."""


@dataclass(frozen=True, eq=False)
class Run:
    """An arm, with the attributes that Ray's callbacks read of a trial."""

    name: str
    config: dict[str, str]
    folder: Path

    def __str__(self) -> str:
        return self.name

    @property
    def evaluated_params(self) -> dict[str, str]:
        return self.config

    @property
    def local_path(self) -> str:
        return str(self.folder / "tensorboard" / re.sub(r"[^\w.()=-]+", "_", self.name))

    def init_local_path(self) -> None:
        Path(self.local_path).mkdir(parents=True, exist_ok=True)


def tensorboard(study: str, store: Store, folder: Path) -> LoggerCallback:
    """Event files under ``tensorboard/<arm>/``."""
    require("tensorboard", "tensorboardX")
    return TBXLoggerCallback()


def mlflow(study: str, store: Store, folder: Path) -> LoggerCallback:
    """Runs of an experiment named like the study, on the server that MLFLOW_TRACKING_URI names, or
    in ``mlflow.db``."""
    require("mlflow", "mlflow", "sqlalchemy", "alembic")
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if not given and not store.is_local:
        raise TrackerError(
            "--tracker mlflow keeps its runs in a local file, which a bucket has no place for: "
            "name a server in the environment variable MLFLOW_TRACKING_URI"
        )
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = given or f"sqlite:///{folder}/mlflow.db"
    try:
        artifacts = None if given else (folder / "mlflow").as_uri()
        return _SameRuns(uri, study, store.url, artifacts)
    except Exception as error:  # clients of databases and servers raise dozens of classes
        LOGGER.info("MLflow", exc_info=error)
        raise TrackerError(
            f"MLflow at {urlsplit(uri).hostname or uri} cannot be used "
            f"({type(error).__name__}): check MLFLOW_TRACKING_URI"
        ) from error


class _SameRuns(MLflowLoggerCallback):
    """Goes on with the run of the same name and storage, where Ray's callback begins another one.
    A server may have runs of studies of this name from several storages."""

    def __init__(self, uri: str, study: str, storage: str, artifacts: str | None) -> None:
        from mlflow import MlflowClient

        tags = {STORAGE_TAG: storage}
        super().__init__(uri, registry_uri=uri, experiment_name=study, tags=tags)
        self._storage = storage
        self._client = MlflowClient(uri, uri)
        found = self._client.get_experiment_by_name(study)
        self._experiment = (
            found.experiment_id if found else self._client.create_experiment(study, artifacts)
        )
        self.setup()

    def log_trial_start(self, trial: Any) -> None:
        same = f"tags.trial_name = '{trial.name}'"
        runs = self._client.search_runs([self._experiment], same)
        found = [run for run in runs if run.data.tags.get(STORAGE_TAG) == self._storage]
        if found:
            self._trial_runs[trial] = found[0].info.run_id
            self._client.update_run(found[0].info.run_id, status="RUNNING")
        super().log_trial_start(trial)


class WandB(LoggerCallback):
    """Runs of a project named like the study; with WANDB_MODE=offline under ``wandb/``.

    Not Ray's WandbLoggerCallback: it puts WANDB_API_KEY into the runtime environment of an actor,
    which Ray logs and shows on its dashboard, and starts a process for each arm.
    """

    def __init__(self, study: str, store: Store, folder: Path) -> None:
        require("wandb", "wandb")
        self._local = os.environ.get("WANDB_MODE", "online") in ("offline", "disabled", "dryrun")
        if not self._local and not os.environ.get("WANDB_API_KEY"):
            raise TrackerError(
                "--tracker wandb needs a key in the environment variable WANDB_API_KEY, or "
                "WANDB_MODE=offline to keep runs in the study's folder"
            )
        self._study, self._storage, self._folder = study, store.url, folder
        self._runs: dict[Run, Any] = {}

    def log_trial_start(self, trial: Any) -> None:
        import wandb

        whole = f"{self._storage} {self._study} {trial.name}"
        self._runs[trial] = wandb.init(
            project=os.environ.get("WANDB_PROJECT", self._study),
            name=trial.name,
            id=hashlib.sha256(whole.encode()).hexdigest()[:16],
            resume=None if self._local else "allow",
            config=trial.config,
            dir=str(self._folder),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        self._runs[trial].log({k: v for k, v in result.items() if k != TRAINING_ITERATION})

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self._runs.pop(trial).finish(exit_code=int(failed))


TRACKERS: dict[str, Callable[[str, Store, Path], LoggerCallback]] = {
    "tensorboard": tensorboard,
    "mlflow": mlflow,
    "wandb": WandB,
}


def require(tracker: str, *modules: str) -> None:
    """Raise TrackerError if one of the modules is not installed."""
    if missing := [name for name in modules if find_spec(name) is None]:
        raise TrackerError(f"--tracker {tracker} needs {', '.join(missing)}: {INSTALL}")


class Tracking(Callback):
    """Tells trackers what becomes of the arms; it is a callback of Ray Tune, called as they run.

    Raises TrackerError for a tracker that cannot be used. The study matters more than its runs
    there: a tracker that fails later is told of on the console and left out from then on, and a
    storage that does not answer is asked again when all arms have ended.
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
        self._runs = [
            Run(arm.name.replace("'", ""), settings_of(arm), self._folder) for arm in arms
        ]
        self._open: set[int] = set()
        self._ended: set[int] = set()
        self._published = 0.0
        self._said: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a copy of its callbacks for a restore; open runs are ours

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._begin(trial.config["arm"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        if result["step"]:
            steps = result["steps"]
            told = {"steps_computed": float(steps), TRAINING_ITERATION: steps}
            self._tell("log_trial_result", steps, self._runs[trial.config["arm"]], told)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._end(trial.config["arm"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._end(trial.config["arm"])

    def close(self) -> None:
        """End the runs of all arms, also of those whose steps existed before or that were
        interrupted. If the storage is a bucket, copy the trackers' files to it."""
        for place, run in enumerate(self._runs):
            if place not in self._ended:
                self._begin(place)
                self._end(place)
            if place not in self._ended:  # the storage still does not answer
                self._tell("log_trial_end", run, True)
        if self._store.is_local:
            return
        if self._publish():
            shutil.rmtree(self._folder, ignore_errors=True)
        else:
            self._say(f"What the trackers wrote lies on this machine: {self._folder}")

    def _begin(self, place: int) -> None:
        if place not in self._open:  # a trial that is tried again starts again
            self._open.add(place)
            self._tell("log_trial_start", self._runs[place])

    def _end(self, place: int) -> None:
        """Tell what was measured of an arm, and end its run. If the storage does not answer, the
        run stays open for ``close``: an error in a callback would make Tune end the sweep."""
        if not self._trackers:
            return
        arm, run = self._arms[place], self._runs[place]
        try:
            existing = len(self._store.existing(arm.targets))
            results = results_of(arm, self._store) | {TRAINING_ITERATION: existing}
        except (OSError, StorageError) as error:
            self._say(f"Trackers cannot be told of results now: {reason(error)}")
            return
        self._open.discard(place)
        self._ended.add(place)
        self._tell("log_trial_result", existing, run, results)
        self._tell("log_trial_end", run, existing < len(arm.targets))
        if not self._store.is_local:
            self._publish()

    def _tell(self, what: str, *arguments: Any) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                getattr(tracker, what)(*arguments)
            except Exception as error:
                LOGGER.info("tracker %s", name, exc_info=error)
                del self._trackers[name]
                failed = f"--tracker {name} failed ({type(error).__name__})"
                self._say(f"{failed} and is left out from now")

    def _publish(self) -> bool:
        """Copy the files that changed to the study's folder. Return whether that could be done."""
        try:
            files = {p: p.stat().st_mtime for p in self._folder.rglob("*") if p.is_file()}
            for file, changed in sorted(files.items()):
                if changed >= self._published:
                    place = f"{self._target}/{file.relative_to(self._folder).as_posix()}"
                    self._store.filesystem.create_dir(place.rpartition("/")[0], recursive=True)
                    fs.copy_files(str(file), place, destination_filesystem=self._store.filesystem)
        except (OSError, StorageError) as error:
            self._say(f"What trackers wrote cannot be copied now: {reason(error)}")
            return False
        self._published = max(files.values(), default=0.0)
        return True

    def _say(self, line: str) -> None:
        """Print the line, but only once however often it is said."""
        if line not in self._said:
            self._said.add(line)
            self._console.print(line, highlight=False, markup=False)


def settings_of(arm: Arm) -> dict[str, str]:
    return {**asdict(arm.setting), "seed": str(arm.seed)}


def results_of(arm: Arm, store: Store) -> dict[str, float]:
    """What was measured of an arm, by names such as ``<role>/<measure>/<by whom>``. Values that are
    missing or not finite are left out."""
    found: dict[str, float] = {}
    for measure in arm.measures:
        if record := store.record_of(measure.step, measure.fingerprint):
            for name, value, *_ in numbers_of(measure.kind, record["facts"]):
                if value is not None and math.isfinite(value):
                    by = re.sub(r"[^\w.-]+", "_", measure.of)
                    found["/".join(filter(None, (measure.role, name, by)))] = value
    return found
