"""Tell a file's compression, kind and encoding by its content, and read its lines as text."""

import bz2
import codecs
import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from weakteach.preferences.pair import DataError

# No pair is as long; a line of a damaged or malicious file might fill the memory.
MAX_ROW_BYTES = 16 << 20

COMPRESSIONS = {"gz": b"\x1f\x8b", "xz": b"\xfd7zXZ\x00", "zst": b"\x28\xb5\x2f\xfd", "bz2": b"BZh"}
SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv",
    ".parquet": "parquet",
}  # fmt: skip
GIT_LFS = b"version https://git-lfs.github.com/spec/"
UTF_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException, UnicodeError)


def file_kind(path: Path, where: str) -> str:
    """A file's kind, ``jsonl``, ``csv`` or ``parquet``, and its compression, as in ``jsonl.gz``.

    The content shows compression and Parquet; otherwise the name decides. A file whose name tells
    nothing is ``jsonl`` if its text begins with ``{`` or ``[``. Raises DataError.
    """
    name = path.name.lower()
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(GIT_LFS):
        raise DataError(
            f"{where} is a pointer of git-lfs and not the file itself. Fetch it with: git lfs pull"
        )
    compression = next((c for c, magic in COMPRESSIONS.items() if head.startswith(magic)), "")
    compression = compression or next((c for c in COMPRESSIONS if name.endswith(f".{c}")), "")
    if compression:
        with opened(path, compression) as file:
            try:
                head = file.read(512)
            except DAMAGE as error:
                raise damaged(where, f"is damaged or no {compression} file", error) from error
        name = name.removesuffix(f".{compression}")
    kind = next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), "")
    if head.startswith(b"PAR1"):
        kind = "parquet"
    elif not kind and _text(head).lstrip().startswith(("{", "[")):
        kind = "jsonl"
    if not kind:
        accepted = ", ".join(SUFFIXES)
        raise DataError(
            f"{where} is of an unknown kind. Its name must end in {accepted}, or one of these "
            f"and .{', .'.join(COMPRESSIONS)}."
        )
    if kind == "parquet" and compression:
        raise DataError(f"{where} is a compressed Parquet file. Decompress it first.")
    return f"{kind}.{compression}" if compression else kind


def damaged(where: str, what: str, error: Exception) -> DataError:
    why = " ".join(str(error).split())
    return DataError(f"{where} {what} and cannot be read: {why}")


def opened(path: Path, compression: str) -> IO[bytes]:
    """The bytes of a file, decompressed."""
    if compression == "gz":
        return cast(IO[bytes], gzip.open(path))
    if compression == "xz":
        return lzma.open(path)
    if compression == "bz2":
        return bz2.open(path)
    if compression == "zst":
        # The stream of pyarrow cannot say how much it has, which BufferedReader needs.
        return cast(IO[bytes], _Zstd(path))
    return path.open("rb")


class _Zstd(io.RawIOBase):
    def __init__(self, path: Path) -> None:
        self._stream = pa.input_stream(str(path), compression="zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _encoding(head: bytes) -> str:
    """The encoding of a text, by its byte order mark or, for UTF-16 without one, by zero bytes."""
    for mark, encoding in UTF_MARKS:
        if head.startswith(mark):
            return encoding
    pairs = head[: len(head) // 2 * 2]
    if len(pairs) >= 4 and pairs[1::2].count(0) > len(pairs) // 4 and not pairs[::2].count(0):
        return "utf-16-le"
    if len(pairs) >= 4 and pairs[::2].count(0) > len(pairs) // 4 and not pairs[1::2].count(0):
        return "utf-16-be"
    return "utf-8"


def _text(head: bytes) -> str:
    return head.decode(_encoding(head), errors="replace")


def text_lines(path: Path, name: str, compression: str, newline: str) -> Iterator[str]:
    """The lines as text; a longer line is cut to its first MAX_ROW_BYTES + 1 characters.

    Bytes that are not UTF-8 become lone surrogates, so that only their own row is refused. Raises
    DataError for a damaged file.
    """
    with opened(path, compression) as file:
        number = 0
        try:
            buffered = io.BufferedReader(cast(io.RawIOBase, file))
            encoding = _encoding(buffered.peek(512)[:512])
            errors = "surrogateescape" if encoding.startswith("utf-8") else "surrogatepass"
            text = io.TextIOWrapper(buffered, encoding, errors=errors, newline=newline)
            for line in _lines(text):
                number += 1
                yield line
        except DAMAGE as error:
            what = f"no {compression} file" if compression else "not all text"
            raise DataError(
                f"{name} is damaged or {what} and cannot be read past line {number}: {error}"
            ) from error


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(MAX_ROW_BYTES + 1):
        yield line
        while len(line) > MAX_ROW_BYTES and not line.endswith("\n"):
            line = text.readline(MAX_ROW_BYTES + 1)


def is_utf8(text: str) -> bool:
    """Whether the text can be written as UTF-8, that is, holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """A file name as text that can be stored, with question marks for bytes that are not text."""
    return name.encode(errors="replace").decode()


def joined(lines: Iterable[str], limit: int) -> str | None:
    """All lines as one text, or None if they have more than ``limit`` characters together."""
    parts: list[str] = []
    length = 0
    for line in lines:
        parts.append(line)
        length += len(line)
        if length > limit:
            return None
    return "".join(parts)


def file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{printable(str(path))} cannot be read: {error.strerror}.") from error


def folder_hash(folder: Path) -> str:
    """The hash of the files below a folder and of their names relative to it, without files and
    folders that are hidden, as they are not data."""
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    digest = hashlib.sha256()
    for name in sorted(files):
        if not any(part.startswith(".") for part in name.split("/")):
            entry = f"{len(name)}:{name}:{file_hash(files[name])}"
            digest.update(entry.encode(errors="surrogateescape"))
    return digest.hexdigest()
