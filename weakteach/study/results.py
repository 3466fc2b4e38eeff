"""From artifacts to the rows of a study's results, and the folder where they are published."""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from weakteach.artifacts.errors import StorageError
from weakteach.artifacts.store import Store
from weakteach.study.arms import Arm
from weakteach.study.report import StudyInfo, write_report
from weakteach.study.results_schema import RESULTS_SCHEMA
from weakteach.study.steps.evaluation import Agreement, GoldReward


def collect(store: Store, arms: list[Arm], failures: dict[str, dict[str, str]]) -> pa.Table:
    """One row per arm and role, from the artifacts that exist; see RESULTS_SCHEMA.

    ``failures`` holds reasons by arm name and role. A row without artifact or reason is pending.
    """
    rows = [
        _row(store, arm, role, failures.get(arm.name, {})) for arm in arms for role in arm.roles
    ]
    return pa.Table.from_pylist(rows, RESULTS_SCHEMA)


def _row(store: Store, arm: Arm, role: str, failures: dict[str, str]) -> dict[str, Any]:
    reward, accuracy = dict(arm.rewards).get(role), dict(arm.accuracies).get(role)
    row: dict[str, Any] = {
        "arm": arm.name,
        "weak": str(arm.weak),
        "student": str(arm.student),
        "fraction": float(arm.fraction),
        "fraction_text": str(arm.fraction),
        "seed": arm.seed,
        "role": role,
        "fingerprint": (reward or accuracy).fingerprint,  # type: ignore[union-attr]
        "error": failures.get(role),
    }
    done = []
    if reward:
        done.append(_add_reward(store, row, reward))
        human = dict(arm.rewards)["human"]
        if role != "human" and store.record(reward) and store.record(human):
            row["minus_human"], row["minus_human_se"] = _paired_difference(store, reward, human)
    if accuracy:
        done.append(_add_share(store, row, accuracy, "student_accuracy"))
    if role == "weak":
        done.append(_add_share(store, row, arm.agreement, "agreement"))
        done.append(_add_share(store, row, arm.teacher_accuracy, "teacher_accuracy"))
        _add_gold_views(store, row, arm)
    row["status"] = "failed" if row["error"] else "done" if all(done) else "pending"
    return row


def _add_reward(store: Store, row: dict[str, Any], reward: GoldReward) -> bool:
    record = store.record(reward)
    if record is None:
        return False
    facts = record["facts"]
    row |= {
        "gold_reward": facts["mean"],
        "gold_reward_se": facts["se"],
        "test_prompts": facts["rows"],
        "garbage": facts.get("garbage"),
    }
    return True


def _add_share(store: Store, row: dict[str, Any], step: Agreement, name: str) -> bool:
    record = store.record(step)
    if record is None:
        return False
    facts = record["facts"]
    row |= {name: facts["agreed"] / facts["compared"], f"{name}_pairs": facts["compared"]}
    return True


def _add_gold_views(store: Store, row: dict[str, Any], arm: Arm) -> None:
    agreement, accuracy = store.record(arm.agreement), store.record(arm.teacher_accuracy)
    if agreement and agreement["facts"]["gold_with_weak"] is not None:
        facts = agreement["facts"]
        row["mismatches"] = facts["compared"] - facts["agreed"]
        if row["mismatches"]:
            row["gold_with_weak"] = facts["gold_with_weak"] / row["mismatches"]
    if accuracy and accuracy["facts"]["weak_right"] is not None:
        facts = accuracy["facts"]
        row["teacher_accuracy_gold"] = facts["weak_right"] / facts["compared"]


def _paired_difference(store: Store, reward: GoldReward, human: GoldReward) -> tuple[float, float]:
    """Mean difference on the same prompts and its standard error."""
    ours, theirs = (
        pq.read_table(f"{store.path(step)}/rewards.parquet", filesystem=store.filesystem)
        for step in (reward, human)
    )
    joined = ours.join(theirs, "prompt_id", join_type="inner", right_suffix="_human")
    difference = joined["reward"].to_numpy() - joined["reward_human"].to_numpy()
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def read_results(store: Store, study: str) -> pa.Table:
    """The results of a study by its name. Raises StorageError if there are none."""
    path = f"{study_folder(store, study)}/results.parquet"
    try:
        return pq.read_table(path, filesystem=store.filesystem)
    except FileNotFoundError as error:
        raise StorageError(f"There is no study {study} in {store.url}") from error


@dataclass(frozen=True)
class StoredStudy:
    """What study.json holds: the description, and kind and fingerprint of every unique step."""

    info: StudyInfo
    steps: tuple[tuple[str, str], ...]


def study_folder(store: Store, study: str) -> str:
    """Where a study's results lie, on the store's file system."""
    return f"{store.root}/studies/{study}"


def study_info(stored: dict[str, Any]) -> StudyInfo:
    """The description from its JSON form, in which tuples are lists."""

    def tuples(value: Any) -> Any:
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return StudyInfo(**{name: tuples(value) for name, value in stored.items()})


def read_study(store: Store, study: str) -> StoredStudy:
    """Raises StorageError if there is no study of that name."""
    try:
        with store.filesystem.open_input_file(f"{study_folder(store, study)}/study.json") as file:
            stored = json.loads(file.read())
    except FileNotFoundError as error:
        raise StorageError(f"There is no study {study} in {store.url}") from error
    return StoredStudy(study_info(stored["info"]), tuple(map(tuple, stored["steps"])))


def publish_results(store: Store, study: StoredStudy, results: pa.Table, final: bool) -> None:
    """Write results.parquet, study.json, report.html and the figure, each whole at any time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(results, folder / "results.parquet")
        stored = {"info": asdict(study.info), "steps": study.steps}
        (folder / "study.json").write_text(json.dumps(stored, indent=1))
        write_report(folder, study.info, results, final)
        target = study_folder(store, study.info.name)
        store.filesystem.create_dir(target, recursive=True)
        for file in sorted(folder.iterdir()):
            partial = f"{target}/.{file.name}.partial"
            fs.copy_files(str(file), partial, destination_filesystem=store.filesystem)
            store.filesystem.move(partial, f"{target}/{file.name}")
