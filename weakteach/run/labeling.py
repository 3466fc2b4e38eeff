"""The work of ``weakteach label`` under a running Ray: read, judge the teacher, label, write."""

import hashlib
import json
import shlex
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.step import Step, walk
from weakteach.artifacts.store import Store
from weakteach.evaluation.gate import CHANCE, gate, priced
from weakteach.evaluation.teaching import Seen, seen_from_json
from weakteach.labeling.forms import FORMS, write_forms
from weakteach.models.resources import Resources
from weakteach.models.spec import Model
from weakteach.preferences.pair import DataError
from weakteach.report.label_card import about, card
from weakteach.report.label_page import write_label_report
from weakteach.report.page import write_whole
from weakteach.results.label_findings import LabelRun, judged_pairs
from weakteach.run.export import (
    CARD,
    LABELS,
    PREFERENCES,
    Exporting,
    drop,
    export,
    least_margin,
    quarantine_anew,
    write_quarantine,
)
from weakteach.run.judging import larger_than, training_of, verdict_of
from weakteach.run.options import Judging, LabelOptions
from weakteach.run.terminal import EXIT_STOPPED, following
from weakteach.statistics.estimate import Estimate
from weakteach.steps.asking import AskHumans
from weakteach.steps.data import TEXT_COLUMNS, Pairs
from weakteach.steps.labels import HumanLabels, WeakLabels
from weakteach.steps.verdict import NewToTeacher, Verdict, read_facts
from weakteach.study.manifest import MANIFEST, Manifest, StudyInfo, manifest_text, study_folder
from weakteach.study.presets import Preset


@dataclass(frozen=True)
class Labeling:
    """A run of ``label``: where it works, and on what. The first of the ``models`` is the teacher,
    the others are its rivals."""

    console: Console
    store: Store
    resources: Resources
    preset: Preset
    models: tuple[Model, ...]
    options: LabelOptions
    judging: Judging
    few: Pairs
    many: Pairs
    elsewhere: Pairs | None
    run: dict[str, Any]

    def obtain(self, text: str, step: Step) -> dict[str, Any]:
        """Obtain the step and return the facts of its record; a line on the console follows it."""
        with following(self.console, text) as progress:

            def told(
                step: Step, done: int, total: int, tokens: int = 0, waits: bool = False
            ) -> None:
                progress(done, total, tokens, waits)

            facts: dict[str, Any] = obtain(self.store, step, self.resources, told)["facts"]
            return facts

    def hold(self, steps: Iterable[Step]) -> None:
        """Keep the steps, and all that they are made of, from ``gc``: write the manifest of a study
        without experiments that has these steps. They stay until that study is forgotten."""
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

    @property
    def verdict(self) -> Verdict:
        model, *rivals = self.models
        dtype = self.options.dtype or self.preset.dtype
        return verdict_of(
            self.preset, self.judging, self.few, model, rivals, self.elsewhere, self.options.seed,
            dtype,
        )  # fmt: skip

    def weak(self, seed: int) -> WeakLabels:
        """The labels of all pairs to label by a teacher that learns from all human choices."""
        dtype = self.options.dtype or self.preset.dtype
        teacher = training_of(self.preset, self.models[0], seed, dtype)(HumanLabels(self.few.all))
        return WeakLabels(teacher, self.many.all, dtype)


def run_labeling(job: Labeling) -> int:
    """Obtain all steps of a run, tell what they found and write files. Return the exit code."""
    console, options, verdict = job.console, job.options, job.verdict
    weak = job.weak(options.seed)
    new = NewToTeacher(weak, job.few.all)
    others = tuple(job.weak(options.seed + n) for n in range(1, job.judging.other_seeds + 1))
    count = options.ask_humans
    asking = AskHumans((weak, *others), new, verdict, count) if count else None
    job.hold([job.few, job.many])
    to_label = read_pairs(job)
    job.hold([verdict, new, *([asking] if asking else [])])
    judge(job, verdict)
    found = judged(job, verdict, to_label)
    facts, advice = found.facts, found.advice
    report_share(console, "Teacher accuracy on held-out human choices", facts.accuracy)
    stopped = not (advice.goes_on or job.judging.no_gate)
    drop(options.out, (LABELS, PREFERENCES, CARD))
    if not stopped or asking:
        job.obtain("training the teacher", weak.teacher)
        if count := job.obtain("labeling", weak)["quarantined"]:
            console.print(f"{job.many.source.name}: {count} pairs could not be labeled")
        write_quarantine(job.store, (job.few, job.many), weak, options.out)
        found = replace(found, seen=seen_from_json(job.obtain("comparing", new)))
        report_seen(console, job.many.source.name, found.seen)
    if not stopped:
        write_labels(job, weak, found)
    if asking:
        found = replace(found, asked=ask(job, asking))
    write_label_report(options.out, found)
    console.print(f"Report: {options.out / 'report.html'}", soft_wrap=True)
    if stopped:
        console.print("Nothing was labeled: --no-gate labels in any case.", soft_wrap=True)
    console.print(advice.sentence, soft_wrap=True)
    return EXIT_STOPPED if stopped else 0


def read_pairs(job: Labeling) -> int:
    """Read both files, write their quarantine and print what was in them. Return the number of
    pairs to label."""
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
    to_label: int = facts[1]["pairs"]
    return to_label


def judge(job: Labeling, verdict: Verdict) -> None:
    """Obtain the verdict, and before it the labels it rests on; a line counts the trainings."""
    labels = [step for step in walk([verdict]) if isinstance(step, WeakLabels)]
    more = job.judging.shares or job.judging.other_seeds
    fewer = "; --curve 0 and --other-seeds 0 make it fewer" if more else ""
    job.console.print(f"The verdict trains {len(labels)} teachers{fewer}", soft_wrap=True)
    with following(job.console, "judging the teacher") as progress:
        progress(0, len(labels))
        for done, step in enumerate(labels, 1):
            obtain(job.store, step, job.resources)
            progress(done, len(labels))
        obtain(job.store, verdict, job.resources)


def judged(job: Labeling, verdict: Verdict, to_label: int) -> LabelRun:
    """What the verdict says of the teacher, which is to label ``to_label`` pairs."""
    facts, judging = read_facts(job.store, verdict), job.judging
    advice = gate(facts, to_label, judging.min_accuracy, larger_than(job.models[0]))
    path = f"{job.store.path(verdict)}/pairs.parquet"
    errors, unsure = judged_pairs(
        pq.read_table(path, filesystem=job.store.filesystem),
        job.few.all.read(job.store, ["pair_id", *TEXT_COLUMNS]),
    )
    return LabelRun(
        labeled=job.few.source.name,
        unlabeled=job.many.source.name,
        to_label=to_label,
        facts=facts,
        advice=advice,
        routes=priced(facts.routing, to_label, judging.label_price),
        price=judging.label_price,
        surest_errors=errors,
        least_sure=unsure,
    )


def ask(job: Labeling, asking: AskHumans) -> int:
    """Write the pairs for humans to label, or say why there are none, and return how many."""
    out, path = job.options.out, f"{job.store.path(asking)}/asked.parquet"
    count: int = job.obtain("choosing pairs for humans", asking)["asked"]
    if not count:
        job.console.print(
            f"Nothing to ask humans about: each pair of {job.many.source.name} has a human choice, "
            "or the teacher has seen it, its prompt or a near-duplicate in training. Give pairs "
            "with new prompts as --unlabeled.",
            soft_wrap=True,
        )
        return 0
    write_forms(pq.read_table(path, filesystem=job.store.filesystem), out)
    job.console.print(
        f"{count} pairs for humans to label: {out / FORMS[0]} and its like; filled in, give one "
        "as --labeled beside the labeled pairs",
        soft_wrap=True,
    )
    return count


def write_labels(job: Labeling, weak: WeakLabels, found: LabelRun) -> None:
    """Write labels, preferences and their card, and say what is left out of the preferences."""
    options, advice = job.options, found.advice
    in_part = advice.kind == "confident" and not job.judging.no_gate
    least = least_margin(job.store, weak, advice.share or 1.0) if in_part else 0.0
    told = about(found, weak.teacher.fingerprint, options.weights)
    exporting = Exporting(
        found.facts.temperature, options.weights, options.min_confidence, least, json.dumps(told),
        options.as_text,
    )  # fmt: skip
    written = export(job.store, job.many, weak, options.out, exporting)
    if written.mixed:
        job.console.print(
            "preferences.parquet: texts, since some pairs have messages and others none",
        )
    if written.unsure:
        why = [f"a confidence below {options.min_confidence:g}"] if options.min_confidence else []
        why += [f"a margin below {least:.3g} (not of the confident part)"] if least else []
        job.console.print(
            f"preferences.parquet: {written.preferences} pairs; {written.unsure} of "
            f"{' or '.join(why)} are left out",
            soft_wrap=True,
        )
    text = card(found, told, written.labels, written.preferences)
    write_whole(options.out / CARD, text.encode())
    job.console.print(f"Labels, preferences and quarantine: {options.out}", soft_wrap=True)


def report_seen(console: Console, name: str, seen: Seen | None) -> None:
    """Print how many pairs the teacher had seen, and how it agrees with humans on the others."""
    assert seen is not None
    told = [
        f"{count} {what}"
        for count, what in (
            (seen.same_pair, "are pairs that the teacher learned from"),
            (seen.same_prompt, "have a prompt that it learned from"),
            (seen.near_duplicate, "are near-duplicates of such pairs"),
        )
        if count
    ]
    if told:
        console.print(
            f"{name}: {', '.join(told)}: labeled, but left out of the agreement", soft_wrap=True
        )
    if seen.agreement:
        report_share(
            console, "Agreement with the human choices of the unlabeled file", seen.agreement
        )


def report_share(console: Console, what: str, share: Estimate) -> None:
    """Print a share of agreeing pairs with its interval, and whether it could be chance."""
    verdict = ": not distinguishable from chance"
    if share.low > CHANCE:
        verdict = ""
    elif share.high < CHANCE:
        verdict = ": worse than chance: are the choices inverted?"
    console.print(
        f"{what}: {share.value:.1%} (95 % interval {share.low:.1%} to {share.high:.1%}, "
        f"{share.prompts} pairs){verdict}",
        soft_wrap=True,
    )
