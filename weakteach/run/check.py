"""``weakteach check``: what files of pairs hold and how they are read, before any work on them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Annotated, Any

from cyclopts import Parameter, validators
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from weakteach.artifacts.errors import UserError, printable
from weakteach.models.size import context_of
from weakteach.models.spec import Model, find_model, tokenizer_of
from weakteach.preferences.pair import Comparison, Pair, canonical_pair, refusal
from weakteach.preferences.reading import Overview, Recognized, overview
from weakteach.preferences.rows import Row, Wishes
from weakteach.preferences.sources import UserSource, data_source
from weakteach.run.options import DEFAULT_TEACHER, Verbose
from weakteach.run.terminal import terminal

# First pairs of each file whose tokens are counted, which takes about a second.
COUNTED_PAIRS = 1000
SHOWN_CHARACTERS = 400
SHOWN_FILES = 3
# How messages with a system turn begin as JSON.
SYSTEM = '[{"role": "system"'


def check(
    *files: str,
    columns: tuple[str, ...] = (),
    choice_values: tuple[str, ...] = (),
    teacher: str = DEFAULT_TEACHER,
    max_tokens: Annotated[int, Parameter(validator=validators.Number(gte=8))] = 512,
    verbose: Verbose = False,
) -> None:
    """Say what files of pairs hold and how they are read, and compute nothing.

    Told are: the form and its columns, columns that are not used, rows that are no
    pairs with the first place of each reason, choices, what files share, lengths in
    tokens, and one pair as a model will read it.

    Parameters
    ----------
    files
        Files, patterns, folders or hub ids, each looked at on its own. The files of
        a pattern in quotation marks are looked at together, as label reads them.
    columns
        Names for columns, such as prompt=question,chosen=better.
    choice_values
        What stands for a choice of the first and of the second response, such as A,B.
    teacher
        Model that will read the pairs: embedded, smollm2-135m, a folder or hub id.
    max_tokens
        Longer pairs will go to quarantine.
    verbose
        Show logs and tracebacks.
    """
    if not files:
        raise UserError("no file is named: weakteach check FILE, such as pairs.jsonl")
    wishes = Wishes.of(columns, choice_values)
    sources = [data_source(file, wishes) for file in files]
    model = find_model(teacher)
    looked = [look(source) for source in sources]
    console = terminal()
    summarize(console, looked)
    tell_lengths(console, looked, model, max_tokens)


@dataclass(frozen=True)
class Looked:
    """What a source was found to hold: its overview, hashes of its pairs and of their prompts, how
    many prompts have human choices, and its first pairs."""

    overview: Overview
    pairs: frozenset[bytes]
    prompts: frozenset[bytes]
    labeled_prompts: int
    first: tuple[Pair, ...]


def look(source: UserSource) -> Looked:
    """Read all rows of a source. Raises DataError."""
    pairs: set[bytes] = set()
    prompts: set[bytes] = set()
    labeled: set[bytes] = set()
    first: list[Pair] = []

    def seen() -> Iterator[Row]:
        for row in source.read():
            if isinstance(row, Comparison) and refusal(row) is None:
                pair, _ = canonical_pair(row)
                pairs.add(bytes.fromhex(pair.pair_id))
                prompt = hashlib.sha256(pair.prompt.encode()).digest()[:16]
                prompts.add(prompt)
                if row.preferred is not None:
                    labeled.add(prompt)
                if len(first) < COUNTED_PAIRS:
                    first.append(pair)
            yield row

    found = overview(source.name, source.recognized(), seen())
    return Looked(found, frozenset(pairs), frozenset(prompts), len(labeled), tuple(first))


def summarize(console: Console, looked: Sequence[Looked]) -> None:
    """Print what the sources hold and what they share."""
    for one in looked:
        console.print(_file_table(one.overview))
        found = one.overview
        if found.loses_many:
            console.print(
                f"Warning: {found.quarantined_share:.0%} of the rows of {found.name} are no pairs.",
                soft_wrap=True,
            )
    if len(looked) > 1:
        console.print(_overlap_table(looked))


def _table(title: str, *headings: str) -> Table:
    table = Table(
        title=Text(printable(title)),
        title_justify="left",
        box=SIMPLE_HEAD,
        show_header=bool(headings),
    )
    for place, heading in enumerate(headings or ("", "")):
        table.add_column(heading, overflow="fold", min_width=10 if place == 0 else None)
    return table


def _file_table(found: Overview) -> Table:
    table = _table(found.name)
    counts = f"{found.rows} = {found.pairs} pairs + {found.quarantined} in quarantine"
    table.add_row("rows", counts)
    for file in _different(found.files):
        table.add_row("form", _form(file))
        if file.unused:
            table.add_row("not used", _named(file.unused))
        if file.unused_meaning:
            table.add_row("Warning:", f"{_named(file.unused_meaning)}: not read, though so named")
        for note in file.notes:
            table.add_row("note", plain(note))
    table.add_row("choices", _choices(found))
    for reason, count in found.reasons.most_common():
        first = found.examples[reason]
        detail = f": {first.detail}" if first.detail else ""
        rows = "row" if count == 1 else "rows"
        text = f"{count} {rows}, the first {first.place}{detail[:200]}"
        table.add_row(plain(reason), plain(text))
    return table


def _different(files: Sequence[Recognized]) -> list[Recognized]:
    """Of the files that are read in the same way, the first; at most SHOWN_FILES in all."""
    ways = {
        (file.forms, file.prompt, file.responses, file.choices, file.unused, file.notes): file
        for file in reversed(files)
    }
    return list(islice(reversed(ways.values()), SHOWN_FILES))


def _form(file: Recognized) -> Text:
    return plain(
        f"{' and '.join(dict.fromkeys(file.forms))}: prompt from {file.prompt}, "
        f"responses from {file.responses[0]} and {file.responses[1]}, choices: {file.choices}"
    )


def _choices(found: Overview) -> str:
    if not found.choices:
        return "none"
    told = f"{found.choices} of {found.pairs} pairs"
    if all(file.choices.startswith("chosen and rejected") for file in found.files):
        return told
    return f"{told}: {found.first_chosen} first, {found.choices - found.first_chosen} second"


def _overlap_table(looked: Sequence[Looked]) -> Table:
    table = _table("In both files", "files", "pairs", "prompts")
    for one, other in combinations(looked, 2):
        table.add_row(
            plain(f"{one.overview.name} and {other.overview.name}"),
            str(len(one.pairs & other.pairs)),
            str(len(one.prompts & other.prompts)),
        )
    return table


def tell_lengths(
    console: Console, looked: Sequence[Looked], model: Model, max_tokens: int
) -> list[int]:
    """Print lengths in tokens, and one pair as the model reads it. Return, for each source, how
    many of its first pairs the model can read whole; nothing if its tokenizer is not at hand."""
    context = context_of(model)
    limit = f"--max-tokens {max_tokens}"
    if context:
        limit += f", and {model} reads at most {context}"
    if model.is_gguf:  # its tokenizer is made by the run
        console.print(f"Longest pairs: {limit}.")
        return []
    # transformers: slow to import
    from weakteach.models.tokens import load_tokenizer, pair_lengths

    tokenizer = load_tokenizer(tokenizer_of(model).location)
    most = min(max_tokens, context or max_tokens)
    table = _table(
        f"Tokens of a pair ({limit})", "file", "median", "longest", "too long", "not readable"
    )
    readable: list[Pair] = []
    usable: list[int] = []
    refused = ""
    for one in looked:
        counted = pair_lengths(tokenizer, one.first)
        lengths = sorted(n for n in counted if isinstance(n, int))
        refused = refused or next((n for n in counted if isinstance(n, str)), "")
        readable += [p for p, n in zip(one.first, counted, strict=True) if isinstance(n, int)]
        usable.append(sum(length <= most for length in lengths))
        if counted:
            over = sum(length > most for length in lengths)
            table.add_row(
                plain(one.overview.name),
                str(lengths[len(lengths) // 2]) if lengths else "",
                str(lengths[-1]) if lengths else "",
                f"{over} of {len(counted)}",
                f"{len(counted) - len(lengths)} of {len(counted)}",
            )
    console.print(table)
    if refused:
        console.print(plain(f"Warning: not readable, the first: {refused}"), soft_wrap=True)
    if readable:
        has_system = any(p.messages and p.messages.prompt.startswith(SYSTEM) for p in readable)
        _show_pair(console, readable[0], tokenizer, model, has_system)
    return usable


def _show_pair(
    console: Console, pair: Pair, tokenizer: Any, model: Model, has_system: bool
) -> None:
    """Print a pair as the model reads it, and how its messages become a text. ``has_system`` says
    whether some pair has a system turn."""
    from weakteach.models.templates import ChatTemplate  # as above
    from weakteach.models.tokens import pair_tokens

    texts = [pair.prompt], [pair.response_1], [pair.response_2]
    (ids,) = pair_tokens(tokenizer, *texts, [pair.messages])
    way = ""
    if pair.messages and tokenizer.chat_template:
        way = ", through its chat template"
        if has_system and not ChatTemplate(tokenizer).takes_system:
            way += " (which takes no system turn: it is put before the first user turn)"
    elif pair.messages:
        way = ", which has no chat template: a transcript of the messages"
    shown = _table(f"The first pair as {model} reads it{way}")
    for name, part in (
        ("prompt", ids.prompt),
        ("response 1", ids.response_1),
        ("response 2", ids.response_2),
    ):
        shown.add_row(name, plain(_shortened(str(tokenizer.decode(part)))))
    console.print(shown)


def _shortened(text: str) -> str:
    """The text; of a long one only both ends."""
    half = SHOWN_CHARACTERS // 2
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:half]} ... {text[-half:]}"


def _named(columns: Sequence[str]) -> Text:
    return plain(", ".join(columns))


def plain(text: str) -> Text:
    """The text with characters that a terminal would obey replaced; its line breaks stay."""
    return Text("\n".join(printable(line) for line in text.split("\n")))
