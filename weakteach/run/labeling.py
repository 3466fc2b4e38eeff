"""The work of ``weakteach label`` under a running Ray: read, teach, test, label, write."""

import hashlib
import json
import shlex
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.step import Step, walk
from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.models.spec import Model
from weakteach.preferences.pair import DataError
from weakteach.run.export import export, quarantine_anew, write_quarantine
from weakteach.run.options import LabelOptions
from weakteach.run.terminal import following
from weakteach.statistics.estimate import wilson_interval
from weakteach.steps.data import HeldOut, Pairs
from weakteach.steps.evaluation import Agreement
from weakteach.steps.labels import HumanLabels, WeakLabels
from weakteach.steps.training import Dpo, Sft
from weakteach.steps.verdict import NewToTeacher
from weakteach.study.manifest import MANIFEST, Manifest, StudyInfo, manifest_text, study_folder
from weakteach.study.policies import policy_of
from weakteach.study.presets import LAPTOP, Preset

LARGEST_HELD_OUT = 500


@dataclass(frozen=True)
class Labeling:
    """A run of ``label``: where it works, and on what."""

    console: Console
    store: Store
    resources: Resources
    preset: Preset
    model: Model
    options: LabelOptions
    few: Pairs
    many: Pairs
    run: dict[str, Any]

    def obtain(self, text: str, step: Step) -> dict[str, Any]:
        """The facts of the step's record; a line follows the step."""
        with following(self.console, text) as progress:

            def told(step: Step, done: int, total: int, tokens: int = 0) -> None:
                progress(done, total, tokens)

            facts: dict[str, Any] = obtain(self.store, step, self.resources, told)["facts"]
            return facts

    def hold(self, steps: Iterable[Step]) -> None:
        """Keep what the steps are made of from ``gc``, as a study of no experiments does, until it
        is forgotten."""
        digest = hashlib.sha256(json.dumps(self.run).encode()).hexdigest()
        name = f"label-{digest[:12]}"
        all_steps = tuple((type(step).__name__, step.fingerprint) for step in walk(steps))
        title = f"Labels of {self.many.source.name} by a teacher of {self.few.source.name}"
        info = StudyInfo(
            name, title, self.preset.name, shlex.join(sys.argv), self.store.url, time.time(),
            steps_total=len(all_steps),
        )  # fmt: skip
        folder = study_folder(self.store, name)
        self.store.filesystem.create_dir(folder, recursive=True)
        text = manifest_text(Manifest(info, (), all_steps))
        self.store.write(f"{folder}/.{MANIFEST}.partial", text.encode())
        self.store.filesystem.move(f"{folder}/.{MANIFEST}.partial", f"{folder}/{MANIFEST}")


def run_labeling(job: Labeling) -> None:
    """Obtain all steps of a run, tell what they found and write the files."""
    console, options = job.console, job.options
    job.hold([job.few, job.many])
    labeled = read_pairs(job)
    sft, teacher, parts = teacher_of(options, job.preset, job.model, job.few, labeled)
    weak = WeakLabels(teacher, job.many.all, teacher.dtype)
    accuracy = Agreement(WeakLabels(teacher, parts.test, teacher.dtype))
    new = NewToTeacher(weak, parts.train)
    job.hold([accuracy, new])
    for name, step in (("SFT", sft), ("DPO", teacher)):
        job.obtain(f"training the teacher ({name})", step)
    tested = job.obtain("testing the teacher", accuracy)
    name = job.many.source.name
    if count := job.obtain("labeling", weak)["quarantined"]:
        console.print(f"{name}: {count} pairs could not be labeled")
    write_quarantine(job.store, (job.few, job.many), weak, options.out)
    report_share(console, "Teacher accuracy on held-out human choices", tested)
    report_agreement(console, name, job.obtain("comparing", new))
    written = export(
        job.store, job.many, weak, options.out, options.min_confidence, as_text=options.as_text
    )
    if written.mixed:
        console.print(
            "preferences.parquet: texts, since some pairs have messages and others none",
        )
    if written.unsure:
        console.print(
            f"preferences.parquet: {written.preferences} pairs; {written.unsure} of a confidence "
            f"below {options.min_confidence:g} are left out"
        )
    console.print(f"Labels, preferences and quarantine: {options.out}", soft_wrap=True)


def read_pairs(job: Labeling) -> int:
    """Read both files, write their quarantine and say what was in them; the number of human
    choices in the labeled one."""
    store, out = job.store, job.options.out
    files = {"labeled": job.few, "unlabeled": job.many}
    try:
        facts = [job.obtain(f"reading {name} pairs", pairs) for name, pairs in files.items()]
    except DataError:
        quarantine_anew([partial(pairs.write, store) for pairs in files.values()], out)
        raise
    write_quarantine(store, files.values(), None, out)
    for pairs, found in zip(files.values(), facts, strict=True):
        counts = f"{found['rows']} rows = {found['pairs']} pairs + {found['quarantined']}"
        job.console.print(f"{pairs.source.name}: {counts} in quarantine", soft_wrap=True)
    choices: int = facts[0]["choices"]
    return choices


def teacher_of(
    options: LabelOptions, preset: Preset, model: Model, few: Pairs, labeled: int
) -> tuple[Sft, Dpo, HeldOut]:
    """The teacher after SFT and after DPO, which learns from the labeled pairs but for those held
    out to test it."""
    recipes = preset.data.teacher_recipes(str(model))
    count = max(1, min(LARGEST_HELD_OUT, int(options.held_out * labeled)))
    parts = HeldOut(few, count, labeled_alone=True)
    choices, dtype = HumanLabels(parts.train), options.dtype or preset.dtype
    documents = preset.pretraining_documents or LAPTOP.pretraining_documents
    start = policy_of(model, documents)
    sft = Sft(start, choices, recipes.sft, options.seed, dtype=dtype)
    return sft, Dpo(sft, choices, recipes.dpo, options.seed, dtype=dtype), parts


def report_agreement(console: Console, name: str, facts: dict[str, Any]) -> None:
    """Print how many pairs the teacher had seen, and how it agrees with humans on the others."""
    seen = [
        f"{count} {what}"
        for count, what in (
            (facts["same_pair"], "are pairs that the teacher learned from"),
            (facts["same_prompt"], "have a prompt that it learned from"),
        )
        if count
    ]
    if seen:
        console.print(
            f"{name}: {', '.join(seen)}: labeled, but left out of the agreement", soft_wrap=True
        )
    if facts["compared"]:
        report_share(console, "Agreement with the human choices of the unlabeled file", facts)


def report_share(console: Console, what: str, facts: dict[str, Any]) -> None:
    """Print a share of agreeing pairs with its interval, and whether it could be chance."""
    low, high = wilson_interval(facts["agreed"], facts["compared"])
    share = facts["agreed"] / facts["compared"]
    verdict = ": not distinguishable from chance, do not use these labels"
    if low > 0.5:
        verdict = ""
    elif high < 0.5:
        verdict = ": worse than chance: are the choices inverted?"
    console.print(
        f"{what}: {share:.1%} (95 % interval {low:.1%} to {high:.1%}, {facts['compared']} pairs)"
        f"{verdict}",
        soft_wrap=True,
    )
