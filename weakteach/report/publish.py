"""Publishing a study: its table of results, manifest, report and figures."""

import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from pyarrow import fs

from weakteach.artifacts.store import Store
from weakteach.report.page import write_report
from weakteach.results.analysis import analyze
from weakteach.results.findings import Findings
from weakteach.results.table import collect
from weakteach.study.manifest import MANIFEST, Manifest, manifest_text, study_folder


def publish_results(store: Store, manifest: Manifest, final: bool) -> Findings:
    """Write results.parquet, study.json, report.html and the figures into the study's folder of the
    store. No reader ever finds a file half written."""
    findings = analyze(store, manifest)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(collect(store, manifest), folder / "results.parquet")
        (folder / MANIFEST).write_text(manifest_text(manifest))
        write_report(folder, manifest.info, findings, final)
        target = study_folder(store, manifest.info.name)
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            place = f"{target}/{file.relative_to(folder).as_posix()}"
            parent, _, base = place.rpartition("/")
            store.filesystem.create_dir(parent, recursive=True)
            partial = f"{parent}/.{base}.partial"
            fs.copy_files(str(file), partial, destination_filesystem=store.filesystem)
            store.filesystem.move(partial, place)
    return findings
