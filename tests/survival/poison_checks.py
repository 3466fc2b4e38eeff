"""What a poisoned store must not do, each as a function that raises AssertionError, and else tells
what came instead."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from commands import weakteach

from weakteach.artifacts.computing import obtain, obtain_each
from weakteach.artifacts.errors import UserError
from weakteach.artifacts.record import seal
from weakteach.artifacts.step import Step, Workspace
from weakteach.artifacts.store import RECORD, Store
from weakteach.models.spec import Model, find_model
from weakteach.models.tiny.family import base_folder
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import HeldOut, Pairs
from weakteach.steps.labels import HumanLabels
from weakteach.steps.training import Sft
from weakteach.study.policies import tokenizers_of
from weakteach.training.recipes import Lora, Schedule, SftRecipe

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)><a href="javascript:x()">[/red]'
PICKLED = ("pytorch_model.bin", "model.pt", "training_args.bin")
STEPS = 4


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return (_make, (str(self.folder),))


def _make(folder: str) -> None:
    Path(folder).mkdir()


@dataclass(frozen=True)
class Policy(Step):
    """The smallest model as an artifact."""

    start: Model

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        shutil.copytree(self.start.location, workspace.out, dirs_exist_ok=True)
        return {}


def refused(act: Callable[[], Any]) -> str:
    """The one line of the UserError that it raises."""
    said = None
    try:
        act()
    except UserError as error:
        said = str(error)
    assert said, "it was not refused"
    return said


def pickled_weights_are_not_loaded(folder: Path) -> str:
    """A pickle beside the config of an artifact, under each name that libraries look for, and under
    the name of the safetensors."""
    import torch

    from weakteach.models.loading import Weights, load_causal, load_reward_model, weights_of

    trap, said = folder / "sprung", ""
    for name in (*PICKLED, "model.safetensors"):
        store, step = Store(folder / name), Policy(find_model("opt-45k"))
        obtain(store, step)
        place = Path(store.path(step))
        (place / "model.safetensors").unlink()
        torch.save(Trap(trap), place / name)
        said = refused(lambda: load_causal(weights_of(store, step)))  # noqa: B023
        refused(lambda: load_reward_model(place))  # noqa: B023
        adapter = folder / f"adapter-{name}"
        adapter.mkdir()
        config = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "task_type": None}
        (adapter / "adapter_config.json").write_text(json.dumps(config))
        shutil.copy(place / name, adapter / name.replace("model", "adapter_model"))
        (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Trap(trap)))
        whole = Weights(str(base_folder("opt-45k")), (str(adapter),))
        refused(lambda: load_causal(whole))  # noqa: B023
        assert not trap.exists(), f"{name} was unpickled"
    return said


def code_of_a_model_is_not_run(folder: Path) -> str:
    """A model folder whose config asks for classes of a Python file beside it."""
    from weakteach.models.loading import Weights, load_causal
    from weakteach.models.tokens import load_tokenizer

    trap, model = folder / "sprung", folder / "model"
    shutil.copytree(base_folder("opt-45k"), model)
    code = f"import os\nos.mkdir({str(trap)!r})\nclass Evil: pass\n"
    (model / "evil.py").write_text(code)
    config = json.loads((model / "config.json").read_text())
    autos = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
    config |= {"model_type": "evil", "auto_map": dict.fromkeys(autos, "evil.Evil")}
    (model / "config.json").write_text(json.dumps(config))
    said = refused(lambda: load_causal(Weights(str(model))))
    tokens = json.loads((model / "tokenizer_config.json").read_text())
    tokens |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (model / "tokenizer_config.json").write_text(json.dumps(tokens))
    with suppress(Exception):  # what counts is what it did
        load_tokenizer(model)
    assert not trap.exists(), "evil.py was run"
    return said


def pickles_in_a_checkpoint_are_not_run(folder: Path) -> str:
    """A training that goes on from a checkpoint whose optimizer, random state and arguments were
    replaced by pickles."""
    import torch

    trap, model = folder / "sprung", find_model("opt-45k")
    store = Store(folder / "store")
    pairs = HeldOut(Pairs(WorldSource(60), tokenizers_of(model)), 10)
    recipe = SftRecipe(Schedule(learning_rate=1e-3, batch=8, steps=STEPS), Lora(rank=2, alpha=4))
    step = Sft(model, HumanLabels(pairs.train), recipe, 0)
    obtain(store, step.labels)
    checkpoint = Path(store.root, "Sft", f".{step.fingerprint}.scratch", "trainer", "checkpoint-1")
    checkpoint.mkdir(parents=True)
    state = {"global_step": 1, "epoch": 0.1, "max_steps": STEPS, "log_history": []}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin",
                 "pytorch_model.bin", "adapter_model.bin", "scaler.pt"):  # fmt: skip
        torch.save(Trap(trap), checkpoint / name)
    outcome = obtain_each(store, [step])[step]
    assert not trap.exists(), "a pickle of the checkpoint was run"
    return str(outcome).splitlines()[0] if isinstance(outcome, Exception) else "trained"


def records_lead_nowhere_else(folder: Path) -> str:
    """A record and a study that name ``..`` and absolute paths."""
    step = HeldOut(Pairs(WorldSource(60), tokenizers_of(find_model("opt-45k"))), 10)
    said = ""
    for number, name in enumerate(("..", "../../outside", "/etc", str(folder / "outside"))):
        storage = folder / str(number) / "store"
        store = Store(storage)
        obtain(store, step)
        file = Path(store.path(step), RECORD)
        record = json.loads(file.read_text())
        file.write_text(
            json.dumps(seal({**record, "inputs": [{"step": name, "fingerprint": "a"}]}))
        )
        said = _refused_command(storage, "show", step.fingerprint)
        file.write_text(json.dumps(seal({**record, "fingerprint": name})))
        _refused_command(storage, "show", step.fingerprint)
        for study in (name, "innocent"):
            (storage / "studies" / "innocent").mkdir(parents=True, exist_ok=True)
            manifest = {**_manifest(name), "steps": [[name, name]]}
            (storage / "studies" / "innocent" / "study.json").write_text(json.dumps(manifest))
            for command in ("plan", "report"):
                _refused_command(storage, command, study)
        assert sorted(path.name for path in storage.parent.iterdir()) == ["store"]
    assert not (folder / "outside").exists()
    return said


def _manifest(name: str) -> dict[str, Any]:
    empty = dict.fromkeys(("title", "preset", "command", "storage"), "")
    return {
        "info": {**empty, "name": name, "started": 1.0},
        "measures": [],
        "experiments": [],
        "failures": {},
    }


def _refused_command(storage: Path, *words: str) -> str:
    code, out, err = weakteach([*words, "--storage", str(storage)])
    assert code in (1, 2), (words, out)
    assert err.startswith("Error: "), (words, err)
    return err.strip().removeprefix("Error: ")


class _Live(HTMLParser):
    """Collects what a browser would run or fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        if tag in ("img", "iframe", "object", "embed", "base", "form", "link"):
            self.found.append(tag)
        for name, value in attrs:
            away = re.match(r"\s*(javascript|data|https?|//)", value or "", re.I)
            if name.startswith("on") or (name in ("href", "src", "action") and away):
                self.found.append(f"{tag} {name}={value}")


def texts_are_shown_and_not_run(storage: Path, study: str) -> str:
    """Every text of a finished study's pairs, its title and its sources are replaced by markup, and
    its report is written again, with examples of pairs."""
    place = storage / "studies" / study / "study.json"
    manifest = json.loads(place.read_text())
    manifest["info"]["title"] = manifest["info"]["command"] = HOSTILE
    agreement = next(i for i, m in enumerate(manifest["measures"]) if m["kind"] == "agreement")
    manifest["measures"].append({**manifest["measures"][agreement], "kind": "examples"})
    manifest["experiments"].append(
        {**manifest["experiments"][0], "id": "E9", "title": HOSTILE, "question": HOSTILE,
         "measures": [len(manifest["measures"]) - 1]}
    )  # fmt: skip
    place.write_text(json.dumps(manifest))
    for file in storage.glob("*/*/*.parquet"):
        table = pq.read_table(file)
        for name in {"prompt", "response_1", "response_2", "response"} & set(table.column_names):
            texts = pa.array([HOSTILE + text for text in table[name].to_pylist()])
            table = table.set_column(table.column_names.index(name), name, texts)
        pq.write_table(table, file)
    code, out, err = weakteach(["report", study, "--storage", str(storage)])
    assert code == 0, out + err
    page = (storage / "studies" / study / "report.html").read_text()
    live = _Live()
    live.feed(page)
    assert live.scripts == 1, f"{live.scripts} scripts"
    assert "default-src 'none'" in page
    assert not live.found, live.found[:3]
    shown = page.count("&lt;script&gt;")
    assert shown > 3, "the texts are not shown at all"
    return f"{shown} shown as text, 1 script, which is the page's own"
