"""Finds what would fail later, before Ray starts and before money is spent.

Each check takes values and returns problems; none of them loads weights.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from itertools import islice
from pathlib import Path
from typing import Any

from rich.table import Table

from weakteach.artifacts.errors import UserError
from weakteach.models.resources import Resources
from weakteach.models.spec import (
    CONFIG,
    TOKENIZER_FILES,
    UNRESOLVED,
    Model,
    RewardForm,
    fetch,
    find_model,
    read_config,
)
from weakteach.preferences.pair import Quarantined

FIRST_ROWS = 100


@dataclass(frozen=True)
class Problem:
    """One thing that would fail: ``what`` is wrong, ``where``, and the ``remedy``."""

    where: str
    what: str
    remedy: str


Config = Mapping[str, Any]
Problems = Iterable[Problem]


def problem_table(problems: Sequence[Problem]) -> Table:
    count = f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}"
    table = Table(title=f"{count} before the start", title_justify="left")
    for heading in ("where", "what", "remedy"):
        table.add_column(heading, overflow="fold")
    for problem in problems:
        table.add_row(problem.where, problem.what, problem.remedy)
    return table


def _said(where: str, check: Callable[[], Any]) -> tuple[Any, list[Problem]]:
    """What the check returns, and the UserError that it raises, if any, as a problem: what is wrong
    is the error's message up to its first colon, the remedy is the rest."""
    try:
        return check(), []
    except UserError as error:
        what, _, remedy = str(error).partition(": ")
        return None, [Problem(where, what, remedy or "see the message")]


def check_models(
    models: Iterable[Model], max_tokens: int, writers: Collection[Model]
) -> list[Problem]:
    """Check models that are trained or that label: that each exists and may be fetched, and has
    weights of a language model that can be trained, a tokenizer with EOS, and a context of
    ``max_tokens``; of ``writers`` also that responses can be drawn from them."""
    problems: list[Problem] = []
    for model in dict.fromkeys(models):
        found, why = _found(model)
        check = _check_writer if model in writers else _check_policy
        problems += why or _check_files(found, "text", max_tokens, check)
    return problems


def check_golds(golds: Iterable[tuple[Model, RewardForm]]) -> list[Problem]:
    """Check reward models, given with the form in which they read pairs: that each exists and may
    be fetched, and has a tokenizer that fits the form (with EOS for texts, with a chat template for
    chats) and a head with one output."""
    problems: list[Problem] = []
    for model, form in dict.fromkeys(golds):
        found, why = _found(model)
        problems += why or _check_files(found, form, 0, _check_head)
    return problems


def check_embeddings(models: Iterable[Model]) -> list[Problem]:
    """Check models of sentences: that each exists and may be fetched, and that the library for them
    is installed."""
    problems: list[Problem] = []
    for model in dict.fromkeys(models):
        found, why = _found(model)
        if not why:
            _, why = _said(found.label, lambda: _small_files(found))  # noqa: B023
        problems += why
        if not why and util.find_spec("sentence_transformers") is None:
            what = "it needs sentence-transformers, which is not installed"
            problems.append(Problem(model.label, what, "pip install 'weakteach[similarity]'"))
    return problems


def _found(model: Model) -> tuple[Model, list[Problem]]:
    """The model, with its current revision if none was looked up before, and the problem in looking
    it up, if there is one."""
    if model.content.endswith(f"@{UNRESOLVED}"):
        return _said(model.label, lambda: find_model(model.label))
    return model, []


def _check_files(
    model: Model, form: RewardForm, max_tokens: int, check_kind: Callable[[str, Config], Problems]
) -> Problems:
    if model.is_gguf or model.is_untrained:
        return []
    name = model.label
    folder, found = _said(name, lambda: _small_files(model))
    if found:
        return found
    config, found = _said(name, lambda: read_config(folder))
    if found:
        return found
    return [
        *_check_tokenizer(name, folder, form),
        *_check_context(name, config, max_tokens),
        *check_kind(name, config),
    ]


def _small_files(model: Model) -> Path:
    """The folder of a model's config and tokenizer, which are fetched without its weights."""
    if model.content.startswith("sha256:"):
        return Path(model.location)
    return fetch(model, [CONFIG, *TOKENIZER_FILES])


def _check_tokenizer(name: str, folder: Path, form: RewardForm) -> Iterator[Problem]:
    from transformers import AutoTokenizer  # slow to import, needed for models with files alone

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # readers of many formats raise many classes
        yield Problem(
            name,
            f"its tokenizer cannot be read ({type(error).__name__})",
            "use a model whose tokenizer needs no code of its own",
        )
        return
    if form == "text" and tokenizer.eos_token_id is None:
        yield Problem(name, "its tokenizer has no EOS, so no response can end", "use another model")
    if form == "chat" and not tokenizer.chat_template:
        yield Problem(name, "it has no chat template", f"give it as pair:{name}, or without a form")


def _check_context(name: str, config: Config, max_tokens: int) -> Problems:
    config = config.get("text_config") or config
    context = config.get("max_position_embeddings") or config.get("n_positions")
    if context and context < max_tokens:
        yield Problem(
            name,
            f"it reads {context} tokens, and pairs may have {max_tokens}",
            f"--max-tokens {context}, or another model",
        )


def _check_policy(name: str, config: Config) -> Problems:
    from transformers.models.auto import modeling_auto  # as above

    known = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    yield from _check_class(name, config, "AutoModelForCausalLM", known)
    if how := config.get("quantization_config"):
        method = how.get("quant_method", "") if isinstance(how, dict) else ""
        what = f"its weights are quantized{f' ({method})' if method else ''}, and are not trained"
        remedy = "give the model that it was made of; sweeps train it in 4 bits by --lora-base nf4"
        yield Problem(name, what, remedy)


def _check_writer(name: str, config: Config) -> Problems:
    from transformers import AutoConfig  # as above

    from weakteach.models.layers import stateful_layers

    if found := list(_check_policy(name, config)):
        yield from found
        return
    try:
        layers = stateful_layers(AutoConfig.for_model(**config))
    except Exception as error:  # classes of many authors check what they are given
        what = f"its config.json cannot be read ({type(error).__name__}: {error})"
        yield Problem(name, what, "use another model, or a newer transformers")
        return
    if layers:
        what = f"it has layers ({', '.join(layers)}) that keep no keys and values, so it can label"
        yield Problem(name, f"{what}, but no responses are drawn from it", "use another student")


def _check_head(name: str, config: Config) -> Problems:
    from transformers.models.auto import modeling_auto  # as above

    known = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    yield from _check_class(name, config, "AutoModelForSequenceClassification", known)
    labels = config.get("num_labels") or len(config.get("id2label") or {0: "", 1: ""})
    kinds = config.get("architectures") or [""]
    if labels != 1 or not kinds[0].endswith("ForSequenceClassification"):
        yield Problem(
            name,
            f"it is no reward model: {kinds[0] or 'no architecture'} with {labels} outputs",
            "give a sequence-classification model with one output as --gold",
        )


def _check_class(name: str, config: Config, loader: str, known: Collection[str]) -> Problems:
    """Check that the class ``loader`` of transformers loads the model without code of its own."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # as above

    kind, own = config.get("model_type"), config.get("auto_map") or ()
    if kind in known:
        return
    if own and (loader in own or kind not in CONFIG_MAPPING_NAMES):
        yield Problem(name, "it comes with code of its own, which is not run", "use another model")
        return
    named = f"its type is {kind!r}" if kind else "its config.json names no model_type"
    what = f"{named}, and {loader} of the transformers installed here loads none such"
    yield Problem(name, what, "use another model, or a newer transformers")


def check_source(data: str, find: Callable[[], Any]) -> list[Problem]:
    """Check that the source of pairs exists and has a split and columns that hold pairs: its first
    rows are read. ``find`` makes the source."""
    source, found = _said(data, find)
    if found:
        return found
    rows, found = _said(data, lambda: list(islice(source.read(), FIRST_ROWS)))
    if found:
        return found
    if not rows:
        return [Problem(data, "it holds no rows", "give other pairs as --data")]
    if all(isinstance(row, Quarantined) for row in rows):
        what = f"none of its first {len(rows)} rows is a pair ({rows[0].reason}: {rows[0].detail})"
        return [Problem(data, what, "rename its columns, or give others as --data")]
    return []


def check_nf4(resources: Resources) -> list[Problem]:
    """Check that there are the GPUs and the library that bases in 4 bits need."""
    where, found = "--lora-base nf4", []
    if not resources.gpus:
        found.append(Problem(where, "a base in 4 bits needs a CUDA GPU", "--gpus 1"))
    if util.find_spec("bitsandbytes") is None:
        what = "it needs bitsandbytes, which is not installed"
        found.append(Problem(where, what, "pip install 'weakteach[nf4]', here and on every host"))
    return found
