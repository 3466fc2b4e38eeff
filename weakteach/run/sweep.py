"""Running a study: Ray Tune walks the arms, one trial each; the report follows as they finish."""

import logging
import tempfile
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ray import tune
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig, TuneConfig
from rich.console import Console

from weakteach.artifacts.computing import obtain_each
from weakteach.artifacts.dropping import at_hand
from weakteach.artifacts.errors import StorageError
from weakteach.artifacts.inventory import tidy
from weakteach.artifacts.step import Step, walk
from weakteach.artifacts.store import Store
from weakteach.labeling.holders import start_holders
from weakteach.models.resources import Resources
from weakteach.report.publish import publish_results
from weakteach.results.findings import Findings
from weakteach.run.dropping import Dropping
from weakteach.run.failures import SharedFailures, reason, start_keeper
from weakteach.run.metrics import StudyMetrics
from weakteach.run.parts import Outcome, Part
from weakteach.run.prices import Rate
from weakteach.run.progress import Doing, Existing, Following, doing_of
from weakteach.run.trackers import Tracking
from weakteach.study.experiment import Experiment, arms_of
from weakteach.study.manifest import Manifest, StudyInfo, make_manifest

LOGGER = logging.getLogger(__name__)
# How often an arm's process may be lost within one step; more would say that the step kills it.
LOSSES_OF_A_PROCESS = 10
SECONDS_BETWEEN_REPORTS = 2.0
# A large study's report takes many seconds to draw: no more than this share of the time goes to it.
REPORT_SHARE = 0.05
# Drivers of a cluster's arms hold no CPU; this puts them on the head, away from spot nodes.
ON_THE_HEAD = {"CPU": 0.0, "node:__internal_head__": 0.001}


def run_study(
    study: StudyInfo,
    experiments: Sequence[Experiment],
    store: Store,
    resources: Resources,
    concurrent: int,
    console: Console,
    rates: tuple[Rate, ...] = (),
    trackers: Collection[str] = (),
    part: Part | None = None,
    drop_sft: bool = False,
) -> Outcome:
    """Compute the arms under a running Ray and keep results, report, metrics and trackers up to
    date; see ``prices.Rate`` and ``trackers.TRACKERS``.

    A step that fails fails the roles that need it; the other roles and arms go on. On Ctrl-C what
    is computed stays, and the report says how far the study came. If a study goes in rounds, this
    is called for each ``part`` of it.
    """
    part = part or Part(arms_of(experiments))
    steps = walk(m.target for one in experiments for m in one.measures if m.target is not None)
    existing = at_hand(store, steps)
    study = replace(
        study,
        steps_total=len(steps),
        steps_existing_at_start=len(existing) - part.computed,
        started=study.started if part.computed else time.time(),
    )
    metrics = StudyMetrics(study.name, store, steps, rates)
    manifest = make_manifest(study, experiments)
    dropping = Dropping(store, study.name, steps, console) if drop_sft else None
    recorder = Recorder(manifest, part, store, steps, existing, console, metrics, dropping)
    tracking = Tracking(trackers, study.name, part.arms, store, console)
    interrupted = False
    if any(step.fingerprint not in existing for arm in part.arms for step in walk(arm.targets)):
        recorder.write(final=False)
        interrupted = not _fit(study.name, part, store, resources, concurrent, recorder, tracking)
        if not interrupted:
            _tidy(store, steps, console)
            if dropping:
                dropping.all_arms_ended()
    elif dropping and store.is_local:  # a bucket's leases need the Ray that was not started
        dropping.all_arms_ended()
    try:
        findings = recorder.write(final=True)
    finally:
        tracking.close()
    return Outcome(recorder.computed, findings, interrupted, recorder.late, recorder.failures)


def _tidy(store: Store, steps: list[Step], console: Console) -> None:
    """Delete what killed processes left. It harms nobody: if it cannot be deleted, the next study
    deletes it."""
    try:
        tidy(store, steps)
    except (OSError, StorageError) as error:
        line = f"What killed processes left cannot be deleted now: {reason(error)}"
        console.print(line, markup=False, highlight=False)


def _fit(
    name: str,
    part: Part,
    store: Store,
    resources: Resources,
    concurrent: int,
    recorder: "Recorder",
    tracking: Tracking,
) -> bool:
    """Let Ray Tune walk the arms. Return whether it came to the end of all of them."""
    if resources.label_actors:
        start_holders()  # here, so that they end with the driver and not with a trial
    trainable = tune.with_resources(
        tune.with_parameters(
            run_arm, part=part, store=store, resources=resources, keeper=start_keeper()
        ),
        ON_THE_HEAD if resources.train_workers else resources.of_a_trial(),
    )
    with tempfile.TemporaryDirectory(prefix="weakteach-tune-") as folder:
        tuner = tune.Tuner(
            trainable,
            param_space={"arm": tune.grid_search(list(range(len(part.arms))))},
            tune_config=TuneConfig(
                max_concurrent_trials=concurrent, reuse_actors=True, metric="steps", mode="max"
            ),
            run_config=RunConfig(
                name=name,
                storage_path=folder if store.is_local else store.url_of(f"{store.root}/.tune"),
                callbacks=[recorder, tracking],
                failure_config=FailureConfig(max_failures=LOSSES_OF_A_PROCESS),
                checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        with recorder.following():
            try:
                tuner.fit()
            except KeyboardInterrupt:
                return False
    # Tune catches a first Ctrl-C itself and stops with arms left.
    return recorder.open_arms == 0


def run_arm(
    config: dict[str, Any], part: Part, store: Store, resources: Resources, keeper: Any
) -> None:
    """A trial: obtain what the arm is made of, and report each step computed and each failure."""
    arm = part.arms[config["arm"]]
    computed = 0
    one_at_a_time = threading.Lock()  # another thread tells that a step waits

    def tell(**said: Any) -> None:
        plain = {"step": "", "doing": "", "failures": {}, "late": False}
        with one_at_a_time:
            tune.report({"steps": computed, **plain, **said})

    if time.time() >= part.deadline:
        tell(late=True)
        return
    told = time.monotonic()

    def finished(step: Step) -> None:
        nonlocal computed
        computed += 1
        tell(step=step.fingerprint)

    def doing(step: Step, done: int, total: int, tokens: int = 0, waits: bool = False) -> None:
        nonlocal told
        if waits or not done or time.monotonic() - told >= SECONDS_BETWEEN_REPORTS:
            told = time.monotonic()
            tell(doing=doing_of(step, done, total, waits))

    known = SharedFailures(keeper)
    outcomes = obtain_each(store, arm.targets, resources, finished, doing, known)
    failures = {}
    for step, error in outcomes.items():
        if isinstance(error, Exception):
            LOGGER.error("%s of %s failed", step, arm.name, exc_info=error)
            failures[step.fingerprint] = reason(error)
    tell(failures=failures)


class Recorder(Callback):
    """Follows a study: counts steps, shows progress, writes results and report."""

    def __init__(
        self,
        manifest: Manifest,
        part: Part,
        store: Store,
        steps: list[Step],
        existing: set[str],
        console: Console,
        metrics: StudyMetrics,
        dropping: Dropping | None = None,
    ) -> None:
        self.computed = part.computed
        self.open_arms = len(part.arms)
        self.late = 0
        self.failures: dict[str, str] = dict(part.failures)
        self._manifest, self._arms, self._store, self._steps = manifest, part.arms, store, steps
        self._console, self._metrics, self._dropping = console, metrics, dropping
        self._late: set[str] = set()
        self._existing = Existing(store, steps, existing)
        self._doing = Doing()
        self._next_write = 0.0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a copy of its callbacks for a restore; the store is ours

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        if result["step"]:
            self.computed += 1
            self._existing.add(result["step"])
            trial.run_metadata.num_failures = 0
        self._doing.say(trial.trial_id, result["doing"])
        self.failures |= result["failures"]
        if result["late"]:
            self._late.add(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        arm = self._arms[trial.config["arm"]]
        reasons = [self.failures.get(step.fingerprint) for step in arm.targets]
        failed = next((why for why in reasons if why), None)
        if trial.trial_id in self._late:
            self.late += 1
            self.open_arms -= 1
            return
        self._arm_ended(f"{arm.name}: " + (f"failed ({failed})" if failed else "done"))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        arm = self._arms[trial.config["arm"]]
        self._doing.say(trial.trial_id, "")
        cause = f"the trial's process died: {reason(trial.get_error() or RuntimeError('unknown'))}"
        try:
            existing = self._store.existing(arm.targets)
        except (OSError, StorageError):  # an error in a callback would end the sweep
            existing = self._existing.look()
        missing = {target.fingerprint for target in arm.targets} - existing
        self.failures |= dict.fromkeys(missing, cause)
        self._arm_ended(f"{arm.name}: {cause}")

    def _arm_ended(self, line: str) -> None:
        self.open_arms -= 1
        self._console.print(line, highlight=False, markup=False)
        if self._dropping:
            self._dropping.an_arm_ended()
        if time.monotonic() < self._next_write:
            return
        try:  # a report that fails now must not stop the study; at its end it is an error
            self.write(final=False)
        except Exception as error:
            LOGGER.exception("report")
            line = f"The report could not be written now: {reason(error)}"
            self._console.print(line, highlight=False, markup=False)

    def write(self, final: bool) -> Findings:
        """Write results, report and figures to <storage>/studies/<name>/."""
        with self._lock:
            started = time.monotonic()
            info = self._manifest.info
            info = replace(
                info,
                steps_computed=self.computed,
                seconds=time.time() - info.started,
            )
            manifest = replace(self._manifest, info=info, failures=self.failures)
            findings = publish_results(self._store, manifest, final)
            now = time.monotonic()
            self._next_write = now + (now - started) / REPORT_SHARE
            return findings

    def following(self) -> Following:
        return Following(self._console, self._look, self._doing, len(self._steps))

    def _look(self) -> int:
        """How many steps exist. The metrics are updated, too."""
        existing = self._existing.look()
        targets = [target for arm in self._arms for target in arm.targets]
        self._metrics.update(targets, existing, set(self.failures))
        return len(existing)
