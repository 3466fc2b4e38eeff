"""Where comparisons come from: an embedded domain, a file, a folder or data set of the hub.

A source is a value that may stand in a cached step: its content is its identity, and the path
where the content lies is not. ``read`` streams; nothing holds a whole source in memory.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from weakteach.artifacts.identity import EXECUTION
from weakteach.preferences.pair import Comparison, DataError, canonical_pair
from weakteach.preferences.readers import csv_rows, json_rows, parquet_rows
from weakteach.preferences.rows import COLUMNS, Row, require_columns, row_comparison
from weakteach.worlds.domain import Domain
from weakteach.worlds.domains import WORLD
from weakteach.worlds.noise import Noise

FileFormat = Literal["jsonl", "jsonl.gz", "csv", "parquet"]

FILE_FORMATS: dict[str, FileFormat] = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".jsonl.gz": "jsonl.gz",
    ".csv": "csv",
    ".parquet": "parquet",
}
COMMIT_HASH = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


class Source(Protocol):
    """What a step needs of a source. Implementations are frozen dataclasses."""

    @property
    def name(self) -> str:
        """Short and human; stands in the pairs' ``source`` column."""
        ...

    def read(self) -> Iterator[Row]:
        """Every row of the source once, in its order. Raises DataError."""
        ...


@dataclass(frozen=True)
class WorldSource:
    """The first pairs of an embedded domain, each with a noisy reading of its gold rewards; the
    noise is the domain's own if None is given."""

    pairs: int
    seed: int = 0
    noise: Noise | None = None
    domain: Domain = WORLD

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise DataError(f"{self.domain.name}:{self.pairs} is empty; ask for at least one pair")

    @property
    def name(self) -> str:
        return f"{self.domain.name}:{self.seed}"

    def read(self) -> Iterator[Comparison]:
        """One comparison an index, its responses in canonical order."""
        noise = self.noise or self.domain.noise
        for index in range(self.pairs):
            drawn = self.domain.pair(self.seed, index)
            place = f"{self.name}:{index}"
            unordered = Comparison(place, drawn.prompt, drawn.response_1, drawn.response_2, None)
            pair, _ = canonical_pair(unordered)
            choice = noise.choice(
                self.domain.gold(pair.prompt, pair.response_1).reward,
                self.domain.gold(pair.prompt, pair.response_2).reward,
                _uniform(pair.pair_id),
            )
            yield Comparison(place, pair.prompt, pair.response_1, pair.response_2, choice)


def _uniform(pair_id: str) -> float:
    """A number in [0, 1) drawn from the pair alone: equal pairs get equal choices."""
    digest = hashlib.sha256(f"human choice of {pair_id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


@dataclass(frozen=True)
class FileSource:
    """The rows of one file; made by ``file_source``."""

    sha256: str
    file_format: FileFormat
    path: str = field(default="", compare=False, metadata=EXECUTION)

    @property
    def name(self) -> str:
        return _printable(Path(self.path).name)

    def read(self) -> Iterator[Row]:
        """The rows with places ``name:number``: lines of JSONL, else rows below the header.

        Raises DataError when the file is absent on this host, is no longer the one that the
        hash was taken of, is damaged, or has columns that no accepted form fits.
        """
        if not Path(self.path).is_file():
            raise DataError(
                f"{_printable(self.path)}: no such file on this host. Put it where every host "
                "sees it and make the source again with that path."
            )
        if _file_hash(Path(self.path)) != self.sha256:
            raise DataError(
                f"{_printable(self.path)} has changed since the source was made. "
                "Make the source again to use the new content."
            )
        yield from self._rows()

    def _rows(self) -> Iterator[Row]:
        if self.file_format == "parquet":
            return parquet_rows(Path(self.path), self.name)
        if self.file_format == "csv":
            return csv_rows(Path(self.path), self.name)
        return json_rows(Path(self.path), self.name, self.file_format == "jsonl.gz")


def file_source(path: str | Path) -> FileSource:
    """The source of a JSONL (``.jsonl``, ``.json``, ``.jsonl.gz``), CSV or Parquet file.

    Raises DataError when the file is missing, a folder, of another kind, empty, unreadable, or
    has columns that no accepted form fits.
    """
    file = Path(path).expanduser().absolute()
    where = _printable(str(file))
    if file.is_dir():
        raise DataError(f"{where} is a folder. Give one file, or use hub_source for the folder.")
    if not file.is_file():
        raise DataError(f"{where}: no such file.")
    suffix = next((s for s in FILE_FORMATS if file.name.lower().endswith(s)), None)
    if suffix is None:
        accepted = ", ".join(FILE_FORMATS)
        raise DataError(f"{where} is of an unknown kind. Its name must end in {accepted}.")
    source = FileSource(_file_hash(file), FILE_FORMATS[suffix], str(file))
    # The first row shows a wrong header or a damaged file now, and not hours later.
    if next(source._rows(), None) is None:
        raise DataError(f"{where} is empty: it holds no rows.")
    return source


@dataclass(frozen=True)
class HubSource:
    """One split of a data set of the Hugging Face hub, or of a local folder laid out like one.

    Made by ``hub_source``. ``revision`` is the commit hash of a hub data set; for a folder it
    is the hash of its files, and ``dataset`` is empty.
    """

    dataset: str
    revision: str
    split: str = "train"
    config: str | None = None
    folder: str = field(default="", compare=False, metadata=EXECUTION)

    @property
    def name(self) -> str:
        return _printable(f"{self.dataset or Path(self.folder).name}:{self.split}")

    def read(self) -> Iterator[Row]:
        """The rows with places ``name:number``, a hub data set downloaded once per host.

        Raises DataError when the data set cannot be had or read, when a folder is no longer the
        one that the hash was taken of, or when no accepted form fits the columns.
        """
        folder = _snapshot(self.dataset, self.revision) if self.dataset else self._checked_folder()
        return _hub_rows(folder, self.config, self.split, self.name)

    def _checked_folder(self) -> str:
        if not Path(self.folder).is_dir():
            raise DataError(
                f"{_printable(self.folder)}: no such folder on this host. Put it where every "
                "host sees it and make the source again with that path."
            )
        if _folder_hash(Path(self.folder)) != self.revision:
            raise DataError(
                f"{_printable(self.folder)} has changed since the source was made. "
                "Make the source again to use the new content."
            )
        return self.folder


def hub_source(
    dataset: str, split: str = "train", config: str | None = None, revision: str | None = None
) -> HubSource:
    """The source of a hub data set by id, its revision resolved now, or of a local folder.

    Raises DataError when there is no such data set or folder, or the hub cannot be reached.
    """
    folder = Path(dataset).expanduser().absolute()
    if folder.is_file():
        raise DataError(f"{_printable(dataset)} is a file. Use file_source for it.")
    if folder.is_dir():
        if revision is not None:
            raise DataError(f"{_printable(dataset)} is a folder and has no revision; leave it out.")
        return HubSource("", _folder_hash(folder), split, config, str(folder))
    if not HUB_ID.fullmatch(dataset):
        raise DataError(f"{dataset!a} is neither a folder here nor an id of the hub.")
    if revision is None or not COMMIT_HASH.fullmatch(revision):
        revision = _resolved(dataset, revision)
    return HubSource(dataset, revision, split, config)


def _hub_rows(folder: str, config: str | None, split: str, name: str) -> Iterator[Row]:
    # Imported here to keep a heavy library out of the path of all other sources.
    import datasets

    number = 0
    try:
        rows = datasets.load_dataset(folder, config, split=split, streaming=True)
        columns = rows.column_names or []
        if columns:
            require_columns(columns, name)
            rows = rows.select_columns([column for column in COLUMNS if column in columns])
        for row in rows:
            number += 1
            yield row_comparison(row, f"{name}:{number}")
    except DataError:
        raise
    # The library lets pass through whatever its many readers raise.
    except Exception as error:
        raise DataError(
            f"{name} cannot be read past row {number}: {type(error).__name__}: {error}. "
            "If single rows are bad, read the file itself with file_source, which sets them aside."
        ) from error


def _snapshot(dataset: str, revision: str) -> str:
    """The folder of a downloaded hub data set; complete downloads also serve offline."""
    # Imported here to keep a heavy library out of the path of all other sources.
    from huggingface_hub import snapshot_download

    try:
        return str(snapshot_download(dataset, repo_type="dataset", revision=revision))
    # Network, access and cache errors have no common base in this library.
    except Exception as error:
        raise DataError(
            f"{dataset} at {revision[:12]} cannot be downloaded ({type(error).__name__}: {error}). "
            "Check the connection, HF_TOKEN and HF_HUB_OFFLINE, or give a local folder instead."
        ) from error


def _resolved(dataset: str, revision: str | None) -> str:
    # Imported here to keep a heavy library out of the path of all other sources.
    from huggingface_hub import HfApi, errors

    asked = f"{dataset} at {revision}" if revision else dataset
    try:
        commit = HfApi().dataset_info(dataset, revision=revision, timeout=30).sha
    except errors.OfflineModeIsEnabled as error:
        raise DataError(
            f"HF_HUB_OFFLINE is set, so the revision of {asked} cannot be looked up. Unset it, or "
            "give the full commit hash of a downloaded copy, or a local folder."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"{dataset} has no revision {revision} on the hub.") from error
    except errors.GatedRepoError as error:
        raise DataError(
            f"{dataset} is gated: accept its terms on the hub and set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            f"there is no data set {dataset} on the hub and no such folder here; a private one "
            "needs HF_TOKEN."
        ) from error
    # Network errors have no common base in this library.
    except Exception as error:
        raise DataError(
            f"the hub could not be reached for the revision of {asked} ({type(error).__name__}: "
            f"{error}). Try again, or give the full commit hash, or a local folder."
        ) from error
    if not commit:
        raise DataError(f"the hub names no revision of {asked}. Give the full commit hash.")
    return commit


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{_printable(str(path))} cannot be read: {error.strerror}.") from error


def _folder_hash(folder: Path) -> str:
    """The hash of a folder's files and of their names below it; hidden ones are not data."""
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    digest = hashlib.sha256()
    for name in sorted(files):
        if not any(part.startswith(".") for part in name.split("/")):
            entry = f"{len(name)}:{name}:{_file_hash(files[name])}"
            digest.update(entry.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _printable(name: str) -> str:
    """A file name as text that can be stored; names may hold bytes that are not."""
    return name.encode(errors="replace").decode()
