"""Data sets of the Hugging Face hub, and folders laid out like one or saved by ``datasets``."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weakteach.preferences.pair import DataError
from weakteach.preferences.readers import Header, Read


def records(folder: str, config: str | None, split: str, name: str) -> Iterator[Read]:
    """Every row of a split with its place ``name:number``. Raises DataError."""
    number = 0
    try:
        rows = _opened(folder, config, split)
        if rows.column_names:
            yield Header(list(rows.column_names))
        for row in rows:
            number += 1
            yield f"{name}:{number}", row
    except DataError:
        raise
    # The library passes on whatever its many readers raise.
    except Exception as error:
        raise DataError(
            f"{name} cannot be read past row {number}: {type(error).__name__}: {error}. "
            "If single rows are bad, name the file itself, whose bad rows are set aside."
        ) from error


def _opened(folder: str, config: str | None, split: str) -> Any:
    # Imported here to keep a heavy library out of the path of all other sources.
    import datasets

    saved = any((Path(folder) / n).is_file() for n in ("state.json", "dataset_dict.json"))
    if saved:
        found = datasets.load_from_disk(folder)
        if isinstance(found, datasets.Dataset):
            return found
        return found[_chosen(list(found), split)]
    splits = datasets.get_dataset_split_names(folder, config)
    return datasets.load_dataset(folder, config, split=_chosen(splits, split), streaming=True)


def _chosen(splits: list[str], split: str) -> str:
    """The split of that name or, if ``train`` is missing, the only one whose name begins with it.
    Raises DataError."""
    if split in splits:
        return split
    alike = [name for name in splits if split == "train" and re.match("train", name)]
    if len(alike) == 1:
        return alike[0]
    raise DataError(
        f"there is no split {split!a}; there are {', '.join(splits)}. Name one after a colon, "
        f"such as FOLDER:{splits[0] if splits else 'train'}"
    )


def snapshot(dataset: str, revision: str) -> str:
    """Download a hub data set and return its folder; a complete download also serves offline."""
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


def resolved(dataset: str, revision: str | None) -> str:
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
