"""Where comparisons come from: an embedded domain, files, folders, data sets of the hub.

A source is a value that may be part of a cached step: it is identified by its content, not by the
path where the content lies. ``read`` streams; a whole source is never held in memory.
"""

import glob
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

from weakteach.artifacts.identity import EXECUTION
from weakteach.preferences import hub
from weakteach.preferences.files import file_hash, file_kind, folder_hash, printable
from weakteach.preferences.forms import find_forms
from weakteach.preferences.pair import Comparison, DataError, canonical_pair
from weakteach.preferences.readers import Note, Read, read_file
from weakteach.preferences.reading import Overview, Recognized, overview, source_rows, survey
from weakteach.preferences.rows import AS_FOUND, Row, Wishes
from weakteach.preferences.surveys import FileSurvey, layouts
from weakteach.worlds.domain import Domain
from weakteach.worlds.domains import WORLD
from weakteach.worlds.noise import Noise

# Rows of a file by which the number of pairs in a row is told.
FIRST_ROWS = 1000
COMMIT_HASH = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
# Stands for the revision of a data set if the hub is not asked for it.
UNRESOLVED = "unresolved"
# The name, then #config and :split if they are given.
DATA_SET = re.compile(r"(?P<name>.+?)(#(?P<config>[^#:/]+))?(:(?P<split>[\w.-]+))?")


class Source(Protocol):
    """What a step needs of a source. Implementations are frozen dataclasses."""

    @property
    def name(self) -> str:
        """A short, readable name; it stands in the pairs' ``source`` column."""
        ...

    def read(self) -> Iterator[Row]:
        """Every row of the source once, in its order. Raises DataError."""
        ...


@dataclass(frozen=True)
class WorldSource:
    """The first pairs of an embedded domain, each with a choice made from its gold rewards by
    ``noise`` or, if that is None, by the domain's own noise."""

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
        """One comparison for each index, with its responses in canonical order."""
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
    """The rows of one file; made by ``file_source``. Its name is the last ``parts`` of its path."""

    # 2: pairs that humans were asked about, scales and texts after prompts are read otherwise.
    VERSION = 2

    sha256: str
    file_format: str
    path: str = field(default="", compare=False, metadata=EXECUTION)
    wishes: Wishes = AS_FOUND
    parts: int = field(default=1, compare=False, metadata=EXECUTION)
    # About how many pairs it holds; None if it was not read yet.
    about: int | None = field(default=None, compare=False, metadata=EXECUTION)

    @property
    def name(self) -> str:
        return printable(Path(*Path(self.path).parts[-self.parts :]).as_posix())

    @property
    def paths(self) -> tuple[str, ...]:
        """The files and folders that are read."""
        return (self.path,)

    def read(self) -> Iterator[Row]:
        """The rows with their places ``name:number``, as ``readers`` numbers them.

        Raises DataError when the file is absent on this host, has changed since its hash was
        taken, is damaged, or has columns or choices whose meaning cannot be told.
        """
        return FilesSource((self,)).read()

    def overview(self) -> Overview:
        """What the file holds and how it is read. Raises DataError."""
        return overview(self.name, self.recognized(), self.read())

    def recognized(self) -> tuple[Recognized, ...]:
        """How the file is read. Raises DataError when it is empty or cannot be read."""
        return FilesSource((self,)).recognized()

    def check_content(self) -> None:
        """Raise DataError unless the file is on this host and as it was when it was named."""
        if not Path(self.path).is_file():
            raise DataError(
                f"{printable(self.path)}: no such file on this host. Put it where every host "
                "sees it and make the source again with that path."
            )
        if file_hash(Path(self.path)) != self.sha256:
            raise DataError(
                f"{printable(self.path)} has changed since the source was made. "
                "Make the source again to use the new content."
            )

    def survey(self) -> tuple[FileSurvey, list[Note]]:
        """What all rows of the file show together. Raises DataError when it cannot be read."""
        return survey(self.records, self.name, self.wishes)

    def filled_survey(self) -> tuple[FileSurvey, list[Note]]:
        """The same. Raises DataError when the file is empty, too."""
        seen, notes = self.survey()
        # A header without rows that fits no form is refused for that.
        unfit = seen.columns and not find_forms(set(seen.columns))
        if not seen.rows + seen.refused and not unfit:
            raise DataError(f"{printable(self.path)} is empty: it holds no rows.")
        return seen, notes

    def records(self) -> Iterator[Read]:
        return read_file(Path(self.path), self.name, self.file_format)


def file_source(path: str | Path, wishes: Wishes = AS_FOUND) -> FileSource:
    """The source of a file of JSON, JSONL, CSV or TSV (each also compressed) or Parquet.

    Raises DataError when the file is missing, a folder, of another kind, empty, unreadable, or
    has columns or choices whose meaning cannot be told.
    """
    # A wrong header, a damaged file or an unclear choice shows now, and not hours later.
    (source,) = _counted([_named_file(path, wishes)])
    return source


def _named_file(path: str | Path, wishes: Wishes) -> FileSource:
    file = Path(path).expanduser().absolute()
    where = printable(str(file))
    if file.is_dir():
        raise DataError(
            f"{where} is a folder, and a folder is not read beside other files. Name its files, "
            f"such as '{where}/*.jsonl', or give the folder alone."
        )
    if not file.is_file():
        raise DataError(f"{where}: no such file.")
    return FileSource(file_hash(file), file_kind(file, where), str(file), wishes)


def _told_apart(files: Sequence[FileSource]) -> tuple[FileSource, ...]:
    """The files, each with as few parts of its path in its name as tell it from the others."""
    whole = {file.path: Path(file.path).parts for file in files}
    ends = Counter(parts[-n:] for parts in whole.values() for n in range(1, len(parts) + 1))
    needed = {
        path: next(n for n in range(1, len(parts) + 1) if ends[parts[-n:]] == 1)
        for path, parts in whole.items()
    }
    return tuple(replace(file, parts=needed[file.path]) for file in files)


def _counted(files: Sequence[FileSource]) -> tuple[FileSource, ...]:
    """The files of one source, each with the number of its pairs, told by all of its rows and how
    many pairs the first of them hold. Raises DataError when a file is empty, cannot be read, or has
    columns or choices whose meaning cannot be told."""
    surveys = [file.filled_survey()[0] for file in files]
    found = iter(layouts([seen for seen in surveys if seen.rows or seen.columns]))
    counted = []
    for file, seen in zip(files, surveys, strict=True):
        layout = next(found) if seen.rows or seen.columns else None
        rows = (record for record in file.records() if isinstance(record, tuple))
        pairs = [
            sum(isinstance(one, Comparison) for one in layout.comparisons(raw, place))
            for place, raw in islice(rows, FIRST_ROWS)
            if layout
        ]
        about = round(seen.rows * sum(pairs) / len(pairs)) if pairs else 0
        counted.append(replace(file, about=about))
    return tuple(counted)


@dataclass(frozen=True)
class FilesSource:
    """The rows of several files, one after the other; made by ``files_source``. What the values of
    a choice column mean is judged by all files that have it."""

    VERSION = 2  # as that of FileSource

    files: tuple[FileSource, ...]

    @property
    def name(self) -> str:
        return f"{self.files[0].name} and {len(self.files) - 1} more"

    @property
    def paths(self) -> tuple[str, ...]:
        """The files and folders that are read."""
        return tuple(path for file in self.files for path in file.paths)

    def read(self) -> Iterator[Row]:
        """The rows of each file, as FileSource gives them. Raises DataError."""
        for file in self.files:
            file.check_content()
        yield from source_rows([(file.survey()[0], file.records) for file in self.files])

    def overview(self) -> Overview:
        """What the files hold together. Raises DataError."""
        return overview(self.name, self.recognized(), self.read())

    def recognized(self) -> tuple[Recognized, ...]:
        """How each file is read. Raises DataError when one is empty or cannot be read."""
        return Recognized.each([file.filled_survey() for file in self.files])


def files_source(paths: Sequence[str | Path], wishes: Wishes = AS_FOUND) -> FilesSource:
    """The source of several files. Raises DataError as ``file_source`` does."""
    return FilesSource(_counted(_told_apart([_named_file(path, wishes) for path in paths])))


@dataclass(frozen=True)
class HubSource:
    """One split of a data set of the Hugging Face hub, or of a local folder laid out like one.

    Made by ``hub_source``. ``revision`` is the commit hash of a hub data set; for a folder it
    is the hash of its files, and ``dataset`` is empty.
    """

    VERSION = 2  # as that of FileSource

    dataset: str
    revision: str
    split: str = "train"
    config: str | None = None
    folder: str = field(default="", compare=False, metadata=EXECUTION)
    wishes: Wishes = AS_FOUND

    @property
    def name(self) -> str:
        return printable(f"{self.dataset or Path(self.folder).name}:{self.split}")

    @property
    def paths(self) -> tuple[str, ...]:
        """The files and folders that are read, but for what is downloaded."""
        return (self.folder,) if self.folder else ()

    def read(self) -> Iterator[Row]:
        """The rows with their places ``name:number``; a hub data set is downloaded once per host.

        Raises DataError when the data set cannot be downloaded or read, when a folder has changed
        since its hash was taken, or when no accepted form fits the columns.
        """
        records = partial(self._records, self._folder())
        seen, _ = survey(records, self.name, self.wishes)
        yield from source_rows([(seen, records)])

    def overview(self) -> Overview:
        """What the split holds and how it is read. Raises DataError."""
        return overview(self.name, self.recognized(), self.read())

    def recognized(self) -> tuple[Recognized, ...]:
        """How the split is read. Raises DataError."""
        seen, notes = survey(partial(self._records, self._folder()), self.name, self.wishes)
        return (Recognized.of(seen.layout(), notes),)

    def _records(self, folder: str) -> Iterator[Read]:
        return hub.records(folder, self.config, self.split, self.name)

    def _folder(self) -> str:
        return hub.snapshot(self.dataset, self.revision) if self.dataset else self._checked_folder()

    def _checked_folder(self) -> str:
        if not Path(self.folder).is_dir():
            raise DataError(
                f"{printable(self.folder)}: no such folder on this host. Put it where every "
                "host sees it and make the source again with that path."
            )
        if folder_hash(Path(self.folder)) != self.revision:
            raise DataError(
                f"{printable(self.folder)} has changed since the source was made. "
                "Make the source again to use the new content."
            )
        return self.folder


def hub_source(
    dataset: str,
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    wishes: Wishes = AS_FOUND,
) -> HubSource:
    """The source of a local folder, or of a hub data set by its id.

    The revision of a data set, if it is not a commit hash, is looked up on the hub at once.

    Raises DataError when there is no such data set or folder, or the hub cannot be reached.
    """
    folder = Path(dataset).expanduser().absolute()
    if folder.is_file():
        raise DataError(f"{printable(dataset)} is a file and has no splits; give its name alone.")
    if folder.is_dir():
        if revision is not None:
            raise DataError(f"{printable(dataset)} is a folder and has no revision; leave it out.")
        return HubSource("", folder_hash(folder), split, config, str(folder), wishes)
    if not HUB_ID.fullmatch(dataset):
        raise DataError(f"{dataset!a} is neither a folder here nor an id of the hub.")
    if revision is None or not COMMIT_HASH.fullmatch(revision):
        revision = hub.resolved(dataset, revision)
    return HubSource(dataset, revision, split, config, wishes=wishes)


def pairs_about(source: Source) -> int | None:
    """About how many pairs a source holds; None if that is not known before it is read."""
    match source:
        case WorldSource(pairs=pairs):
            return pairs
        case FileSource(about=about):
            return about
        case FilesSource(files=files):
            known = [file.about for file in files if file.about is not None]
            return sum(known) if len(known) == len(files) else None
        case _:
            return None


# The sources of a user's own data; each has an ``overview`` and ``paths``.
UserSource = FileSource | FilesSource | HubSource


def data_source(
    data: str | Sequence[str], wishes: Wishes = AS_FOUND, resolve: bool = True
) -> UserSource:
    """The source that a user names: a file, several files, a pattern, a folder or an id of the hub.

    A folder and a hub id may end in ``#config:split``. With ``resolve=False`` the hub is not
    asked, and the revision of its data set is UNRESOLVED. Raises DataError.
    """
    named = [data] if isinstance(data, str) else list(data)
    paths: list[str] = []
    for name in named:
        found = (
            []
            if Path(name).expanduser().exists()
            else sorted(glob.glob(str(Path(name).expanduser())))
        )
        paths += found or [name]
    if not paths:
        raise DataError("no data are named: give a file, a folder or an id of the hub")
    if len(paths) > 1:
        return files_source(paths, wishes)
    (name,) = paths
    path = Path(name).expanduser()
    if path.is_file() or re.search(r"\.(jsonl?|ndjson|csv|tsv|parquet)(\.\w+)?\Z", name):
        return file_source(path, wishes)
    if path.is_dir():
        return hub_source(name, wishes=wishes)
    matched = DATA_SET.fullmatch(name)
    parts = matched.groupdict() if matched else {"name": name, "config": None, "split": None}
    split = parts["split"] or "train"
    if not resolve and not Path(str(parts["name"])).expanduser().exists():
        return HubSource(str(parts["name"]), UNRESOLVED, split, parts["config"], wishes=wishes)
    return hub_source(str(parts["name"]), split, parts["config"], wishes=wishes)
