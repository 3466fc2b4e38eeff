"""Commands of the embedded domains and models: ``world`` and ``pretrain``."""

import json
from itertools import islice
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from weakteach.artifacts.errors import StorageError
from weakteach.models.tiny.family import DOCUMENTS, tiny_model
from weakteach.preferences.pair import DataError
from weakteach.preferences.sources import WorldSource
from weakteach.run.options import Verbose
from weakteach.run.terminal import following, terminal
from weakteach.worlds.domains import DOMAINS

DOMAIN_NAMES = tuple(DOMAINS)
AtLeast0 = Annotated[int, Parameter(validator=validators.Number(gte=0))]


def pretrain(
    name: str,
    *,
    out: Path,
    documents: Annotated[int, Parameter(validator=validators.Number(gte=16))] = DOCUMENTS,
    seed: AtLeast0 = 0,
    verbose: Verbose = False,
) -> None:
    """Pretrain an embedded model on documents of the embedded domains.

    Parameters
    ----------
    name
        An embedded model, such as opt-4m or llama-230k.
    out
        Folder for the model; must be empty or new.
    documents
        Documents, each read once.
    seed
        Of the documents and of the first weights.
    verbose
        Show logs and tracebacks.
    """
    try:
        tiny_model(name)
    except ValueError as error:
        raise DataError(str(error)) from error
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StorageError(f"{out} is not empty: give a new folder with --out")
    from weakteach.models.process import prepare_process  # torch: slow to import
    from weakteach.models.tiny import pretraining

    # Sums over threads differ in their last bits; one thread gives the shipped weights.
    prepare_process(threads=1)
    console = terminal()
    with following(console, f"pretraining {name}") as progress:
        pretraining.pretrain(
            name, out, documents, seed, lambda step, steps, loss: progress(step, steps)
        )
    console.print(f"Model: {out}", soft_wrap=True)


def world(
    pairs: Annotated[int, Parameter(validator=validators.Number(gte=1))],
    *,
    out: Path,
    domain: Annotated[str, Parameter(choices=DOMAIN_NAMES)] = "world",
    seed: AtLeast0 = 0,
    start: AtLeast0 = 0,
    choices: Annotated[bool, Parameter(negative="--no-choices")] = True,
    verbose: Verbose = False,
) -> None:
    """Write pairs of an embedded domain as JSONL.

    Parameters
    ----------
    pairs
        How many pairs.
    out
        The .jsonl file to write.
    domain
        Requests and answers, or posts and summaries.
    seed
        Of the pairs and of the human choices.
    start
        Index of the first pair.
    choices
        Write chosen and rejected, or response_1 and response_2.
    verbose
        Show logs and tracebacks.
    """
    source = WorldSource(start + pairs, seed, domain=DOMAINS[domain])
    try:
        with out.open("w", encoding="utf-8") as file:
            for row in islice(source.read(), start, None):
                chosen, rejected = row.first, row.second
                if choices and row.preferred == 2:
                    chosen, rejected = rejected, chosen
                names = ("chosen", "rejected") if choices else ("response_1", "response_2")
                record = dict(zip(names, (chosen, rejected), strict=True))
                file.write(json.dumps({"prompt": row.prompt, **record}) + "\n")
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror}") from error
    terminal().print(f"{pairs} pairs: {out}", soft_wrap=True)
