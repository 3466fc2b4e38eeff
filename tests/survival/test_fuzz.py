"""A few of the inputs of ``fuzz.py``, and what its findings came down to."""

import gzip
import json

import pytest
from commands import weakteach
from fuzz import BAD, outcomes
from fuzz_inputs import BATCH, inputs
from fuzz_readers import KEPT, QUARANTINED, REFUSED

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.errors import StorageError, UserError
from weakteach.artifacts.record import seal
from weakteach.artifacts.store import Store
from weakteach.models.spec import find_model
from weakteach.preferences.files import MAX_ROW_BYTES
from weakteach.preferences.pair import Quarantined
from weakteach.preferences.sources import WorldSource, file_source
from weakteach.steps.data import HeldOut, Pairs
from weakteach.study.manifest import study_folder
from weakteach.study.policies import tokenizers_of


@pytest.fixture(scope="module")
def held_out():
    return HeldOut(Pairs(WorldSource(60), tokenizers_of(find_model("opt-45k"))), 10)


@pytest.fixture
def storage(held_out, tmp_path):
    obtain(Store(tmp_path / "store"), held_out)
    return tmp_path / "store"


@pytest.mark.parametrize(
    "reader",
    ["jsonl", "jsonl.gz", "csv", "parquet", pytest.param("gguf", marks=pytest.mark.slow), "record"],
)
def test_mutated_inputs_are_kept_quarantined_or_refused(reader, storage):
    found = list(outcomes(reader, 60, 0, 120.0, str(storage)))
    assert [outcome.index for outcome in found] == list(range(60))
    assert [outcome for outcome in found if outcome.kind in BAD] == []
    kinds = {outcome.kind for outcome in found}
    assert kinds & {KEPT, QUARANTINED}
    assert REFUSED in kinds


def test_the_same_seed_makes_the_same_inputs():
    assert inputs("csv", 3, 1) == inputs("csv", 3, 1)
    assert len(inputs("csv", 3, 1)) == BATCH
    assert inputs("csv", 3, 1) != inputs("csv", 4, 1)


def test_a_line_that_would_fill_the_memory_is_set_aside_and_the_next_one_is_read(tmp_path):
    row = json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"})
    file = tmp_path / "rows.jsonl.gz"
    with gzip.open(file, "wt", compresslevel=1) as lines:
        lines.write("{" + " " * (3 * MAX_ROW_BYTES) + "}\n" + row + "\n")
    long, sound = file_source(file).read()
    assert isinstance(long, Quarantined)
    assert (long.place, long.reason) == ("rows.jsonl.gz:1", "too long")
    assert sound.place == "rows.jsonl.gz:2"


def test_an_error_of_a_user_is_one_printable_line():
    assert str(UserError(" a\n  b\x1b[31m\r\n\nc ")) == "a b\N{REPLACEMENT CHARACTER}[31m c"


def change(storage, held_out, sealed=False, **changes):
    file = storage / "HeldOut" / held_out.fingerprint / "record.json"
    record = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps(seal(record) if sealed else record))


def test_a_changed_record_is_told_from_the_one_that_was_written(storage, held_out):
    change(storage, held_out, facts={"test": 11})
    with pytest.raises(StorageError, match=f"{held_out.fingerprint} is damaged .*digest"):
        Store(storage).record(held_out)
    code, _, said = weakteach(["show", held_out.fingerprint, "--storage", str(storage)])
    assert code == 2
    assert said.count("\n") == 1


def test_a_record_of_before_the_digest_is_one(storage, held_out):
    file = storage / "HeldOut" / held_out.fingerprint / "record.json"
    record = json.loads(file.read_text())
    del record["digest"]
    file.write_text(json.dumps(record))
    assert Store(storage).record(held_out) == record


@pytest.mark.parametrize("name", ["..", "../../etc", "/etc", "", "a/b", "a\x00", "ü", None, 3])
def test_no_name_leads_out_of_the_store(storage, held_out, name):
    change(storage, held_out, sealed=True, inputs=[{"step": name, "fingerprint": "a" * 20}])
    with pytest.raises(StorageError, match="inputs are no list of steps"):
        Store(storage).record(held_out)
    with pytest.raises(StorageError, match="cannot be a name"):
        Store(storage).place("Split", name)
    with pytest.raises(StorageError, match="cannot be a name"):
        study_folder(Store(storage), name)


def test_a_lineage_in_a_circle_is_an_error(storage, held_out):
    itself = {"step": "HeldOut", "fingerprint": held_out.fingerprint}
    change(storage, held_out, sealed=True, inputs=[itself])
    code, _, said = weakteach(["show", held_out.fingerprint, "--storage", str(storage)])
    assert code == 2
    assert "circle" in said
