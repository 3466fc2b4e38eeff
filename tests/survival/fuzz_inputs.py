"""Inputs for the readers: well-formed and ill-formed values by hypothesis, and mutated bytes.

A batch of inputs is a function of the reader, the seed and the batch's number alone.
"""

import csv
import gzip
import io
import json
import random
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st
from hypothesis.errors import HypothesisWarning

sys.path.append(str(Path(__file__).parents[1]))  # when run as a command

from gguf_files import write_gguf

from weakteach.artifacts.record import seal

BATCH = 100
MUTATIONS = 6
EDGES = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    0x7F,
    0x80,
    0xFF,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
BOMB_BYTES = 1 << 30
ITSELF = "the record's own fingerprint"
TOKENS: dict[str, tuple[bytes, ...]] = {
    "jsonl": (b"{", b"}", b"[", b'"', b"\\u", b"\\ud800", b"\n", b"\r", b"NaN", b"1e999", b"\x00",
              b"\xff", b'"chosen":', b"null", b"[" * 5000, b"9" * 5000, b"\xef\xbb\xbf"),
    "csv": (b'"', b'""', b",", b"\n", b"\r", b"\r\n", b"\x00", b"\xff", b"prompt", b";",
            b"\xef\xbb\xbf"),
    "parquet": (b"PAR1", b"\x00" * 8, b"\xff" * 8, b"\x15\x02", b"\x19\x1c"),
    "gguf": (b"GGUF", b"\x00" * 8, b"\xff" * 8, b"general.architecture", b"llama",
             b"tokenizer.ggml.tokens"),
    "record": (b'"', b"{", b"}", b"..", b"../../", b"/etc/passwd", b"\x00", b"\\u0000", b"NaN",
               b"1e999", b"null", b"[]", b"<script>", b"9" * 5000),
}  # fmt: skip

texts = st.text(st.characters(codec="utf-8"), max_size=24) | st.sampled_from(
    ["", " ", "\x00", "\n\nHuman: a\n\nAssistant: b", "\n\nHuman:", "[", '[{"role": "user"}]',
     "<script>alert(1)</script>", "../../etc/passwd", "=1+1", "\ud800"]
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": texts | values}
)
cells = texts | st.lists(turns, max_size=3) | values
words = st.sampled_from(["a heron", "it is big.", "Ünïcode 鷺", "two\nlines", "<b>bold</b>"])
sound_rows = st.fixed_dictionaries({"prompt": words, "chosen": words, "rejected": words})
rows = (
    st.fixed_dictionaries({"prompt": texts, "chosen": texts, "rejected": texts})
    | st.fixed_dictionaries(
        {"prompt": texts, "response_1": texts, "response_2": texts},
        optional={"choice": st.sampled_from([1, 2, "1", 1.0, None, 3, "x", True])},
    )
    | st.dictionaries(
        st.sampled_from(["prompt", "chosen", "rejected", "response_1", "response_2", "choice"])
        | texts,
        cells,
        max_size=6,
    )
)
paths_into_records = st.lists(
    st.tuples(
        st.integers(0, 400), values | st.sampled_from(["..", "../../x", "/etc", "", "a/b", ITSELF])
    ),
    min_size=1,
    max_size=3,
)
edges = st.sampled_from(EDGES)


def inputs(
    reader: str, seed: int, batch: int, record: bytes = b"", count: int = BATCH
) -> list[bytes]:
    """The first ``count`` inputs of a batch, half of all made by hypothesis, half mutated bytes.

    ``record`` is the one that those of the reader ``record`` are made of.
    """
    made = MAKERS[reader](seed * 1_000_003 + batch, record)
    chance = random.Random(f"{reader} {seed} {batch}")
    tokens = TOKENS[reader.removesuffix(".gz")]
    mutated = []
    for _ in range(BATCH - len(made)):
        source = chance.choice(made)
        if reader.endswith(".gz") and chance.random() < 0.5:  # below the compression
            mutated.append(_zipped(mutate(_unzipped(source), chance, tokens)))
        else:
            mutated.append(mutate(source, chance, tokens))
    whole = made + mutated
    if reader == "jsonl.gz" and batch == 0 and count == BATCH:  # takes seconds
        whole[-1] = _bomb()
    return whole[:count]


def mutate(data: bytes, chance: random.Random, tokens: tuple[bytes, ...]) -> bytes:
    """The bytes after one to MUTATIONS random changes."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, MUTATIONS)):
        at = chance.randrange(len(changed) + 1)
        stop = min(len(changed), at + chance.choice((1, 2, 4, 8, 32, 256)))
        kind = chance.randrange(7)
        if kind == 0 and changed:
            changed[min(at, len(changed) - 1)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at:stop] = chance.randbytes(stop - at)
        elif kind == 2:
            del changed[at:stop]
        elif kind == 3:
            changed[at:at] = changed[at:stop] * chance.choice((1, 2, 50))
        elif kind == 4:
            changed[at:at] = chance.choice(tokens)
        elif kind == 5:
            width = chance.choice((4, 8))
            value = chance.choice(EDGES) % 2 ** (8 * width)
            changed[at : at + width] = value.to_bytes(width, "little")
        elif kind == 6 and chance.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def _drawn(strategy: st.SearchStrategy[Any], seed: int, count: int) -> list[Any]:
    """Values of the strategy, always the same for the same seed."""
    found: list[Any] = []

    @hypothesis_seed(seed)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisWarning)
        collect()
    return found[:count]


def _jsonl(seed: int, _: bytes = b"") -> list[bytes]:
    def lines(table: list[Any]) -> bytes:
        return "".join(json.dumps(row) + "\n" for row in table).encode()

    tables = st.lists(sound_rows, min_size=1, max_size=6) | st.lists(rows | values, max_size=6)
    return [lines(table) for table in _drawn(tables, seed, BATCH // 2)]


def _zipped(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=1, mtime=0)


def _unzipped(data: bytes) -> bytes:
    return gzip.decompress(data)


def _jsonl_gz(seed: int, _: bytes = b"") -> list[bytes]:
    return [_zipped(data) for data in _jsonl(seed)]


def _bomb() -> bytes:
    """One line of BOMB_BYTES in a file a thousandth as long."""
    line = io.BytesIO()
    with gzip.GzipFile(fileobj=line, mode="wb", compresslevel=1, mtime=0) as file:
        file.write(b'{"chosen": "')
        for _ in range(BOMB_BYTES >> 20):
            file.write(b"a" * (1 << 20))
        file.write(b'"}\n')
    return line.getvalue()


def _csv(seed: int, _: bytes = b"") -> list[bytes]:
    forms = st.sampled_from(
        [["prompt", "chosen", "rejected"], ["chosen", "rejected"],
         ["prompt", "response_1", "response_2", "choice"], ["a", "b"]]
    )  # fmt: skip
    sound = st.tuples(forms, st.lists(st.lists(words, min_size=3, max_size=3), max_size=6))
    tables = sound | st.tuples(forms, st.lists(st.lists(texts, max_size=5), max_size=6))

    def lines(table: tuple[list[str], list[list[str]]]) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(table[0])
        writer.writerows(table[1])
        return text.getvalue().encode("utf-8", "surrogatepass")

    return [lines(table) for table in _drawn(tables, seed, BATCH // 2)]


def _parquet(seed: int, _: bytes = b"") -> list[bytes]:
    text_types = st.sampled_from(
        [pa.string(), pa.large_string(), pa.string_view(), pa.binary(),
         pa.dictionary(pa.int32(), pa.string()), pa.list_(pa.string())]
    )  # fmt: skip
    forms = [("prompt", "chosen", "rejected"), ("prompt", "response_1", "response_2")]
    plain = texts.filter(lambda text: text.isprintable() or "\n" in text).map(
        lambda text: text.encode(errors="replace").decode()
    )
    tables = st.tuples(
        st.sampled_from(forms),
        st.just([pa.string()] * 3) | st.lists(text_types, min_size=3, max_size=3),
        st.lists(st.lists(words | plain | st.none(), min_size=3, max_size=3), max_size=6),
        st.sampled_from(["none", "snappy", "gzip", "zstd", "lz4", "brotli"]),
        st.sampled_from(["1.0", "2.0"]),
        st.booleans(),
    )

    def written(
        names: tuple[str, ...], types: list[Any], table: list[list[str | None]], codec: str,
        page: str, dictionary: bool,
    ) -> bytes:  # fmt: skip
        columns = {
            name: pa.array([_cell(row[place], kind) for row in table], kind)
            for place, (name, kind) in enumerate(zip(names, types, strict=True))
        }
        sink = io.BytesIO()
        pq.write_table(
            pa.table(columns), sink, compression=codec, data_page_version=page,
            use_dictionary=dictionary, row_group_size=2,
        )  # fmt: skip
        return sink.getvalue()

    return [written(*table) for table in _drawn(tables, seed, BATCH // 2)]


def _cell(value: str | None, kind: Any) -> Any:
    if value is None:
        return None
    if pa.types.is_list(kind):
        return [value]
    return value.encode() if pa.types.is_binary(kind) else value


@cache
def tiny_gguf() -> bytes:
    """A GGUF file that is whole."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tiny.gguf")
        write_gguf(file)
        return file.read_bytes()


def _gguf(seed: int, _: bytes = b"") -> list[bytes]:
    """The tiny model with counts, lengths or types of its header set to edges of their ranges."""
    whole = tiny_gguf()
    header = whole.index(b"blk.0.ffn_down.weight") + 64  # about where the header ends
    places = st.integers(4, header) | st.sampled_from([4, 8, 16])
    changes = st.lists(st.tuples(places, st.sampled_from([1, 4, 8]), edges), max_size=2)

    def changed(changes: list[tuple[int, int, int]]) -> bytes:
        data = bytearray(whole)
        for place, width, value in changes:
            data[place : place + width] = struct.pack("<Q", value)[:width]
        return bytes(data)

    return [changed(change) for change in _drawn(changes, seed, BATCH // 2)]


def _record(seed: int, record: bytes) -> list[bytes]:
    """The record with some of its values replaced, half of the time with a digest that fits, and
    JSON that is no record at all."""

    def changed(changes: list[tuple[int, Any]]) -> bytes:
        data = json.loads(record)
        itself = data["fingerprint"]
        for place, value in changes:
            slots = _slots(data)
            holder, key = slots[place % len(slots)]
            holder[key] = itself if value == ITSELF else value
        return json.dumps(seal(data) if len(changes) % 2 else data).encode()

    some = _drawn(paths_into_records, seed, BATCH // 2 - 5)
    return [changed(change) for change in some] + [
        json.dumps(value).encode() for value in _drawn(values, seed, 5)
    ]


def _slots(data: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value that holds a value, as a container and a key."""
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    found = [(data, key) for key in keys]
    return found + [slot for key in keys for slot in _slots(data[key])] or [({"": 0}, "")]


MAKERS: dict[str, Callable[[int, bytes], list[bytes]]] = {
    "jsonl": _jsonl,
    "jsonl.gz": _jsonl_gz,
    "csv": _csv,
    "parquet": _parquet,
    "gguf": _gguf,
    "record": _record,
}
