"""Turn the rows of a file into comparisons, by the form that the file as a whole has."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from weakteach.preferences.candidates import only_turn, responses
from weakteach.preferences.cuts import (
    Texts,
    common_words,
    extended_text,
    from_messages,
    from_parts,
    from_transcripts,
)
from weakteach.preferences.forms import (
    ACCEPTED,
    IDS,
    MEANING,
    PROMPT_ENDS,
    REMEDY,
    SYSTEMS,
    Coding,
    Form,
    fold,
    fold_path,
    folded_choice,
    names,
    value_at,
)
from weakteach.preferences.messages import (
    ASSISTANT,
    HUMAN,
    Messages,
    Refusal,
    is_transcript,
    refuse,
    text_list,
    text_or_messages,
    tools_text,
)
from weakteach.preferences.pair import Comparison, DataError, MessagesOf, Quarantined

Row = Comparison | Quarantined

# The place of a row in its file, and the row as the reader of the file gives it.
Record = tuple[str, Mapping[Any, Any]]


@dataclass(frozen=True)
class Wishes:
    """What a user says about the columns of his data; part of the identity of a source.

    ``columns`` are pairs of a known name and the user's column that stands for it.
    ``choice_values`` are the values of the choice column for the first and the second response.
    """

    columns: tuple[tuple[str, str], ...] = ()
    choice_values: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        known = [fold(name) for name, _ in self.columns]
        if twice := [name for name in known if known.count(name) > 1]:
            raise DataError(f"--columns names two columns for {twice[0]}; name one")
        if self.choice_values and len({folded_choice(v) for v in self.choice_values}) < 2:
            raise DataError("--choice-values takes two different values, such as A,B")

    @classmethod
    def of(cls, columns: Sequence[str] = (), choice_values: Sequence[str] = ()) -> "Wishes":
        """The wishes that the options --columns and --choice-values express. Raises DataError."""
        pairs = [tuple(item.strip() for item in one.partition("=")[::2]) for one in columns]
        if wrong := [one for one, pair in zip(columns, pairs, strict=True) if not all(pair)]:
            raise DataError(f"--columns: {wrong[0]} is not NAME=COLUMN, such as prompt=question")
        if choice_values and len(choice_values) != 2:
            raise DataError("--choice-values takes two different values, such as A,B")
        first_second = (choice_values[0], choice_values[1]) if choice_values else None
        return cls(tuple((name, column) for name, column in pairs), first_second)

    def paths(self, columns: Container[str]) -> dict[str, str]:
        """The known names, folded, and the path of the column that stands for each in a row with
        these folded columns. A column may have a dot in its own name."""
        return {
            fold(known): fold(own) if fold(own) in columns else fold_path(own)
            for known, own in self.columns
        }

    def first(self, names: Sequence[str]) -> list[str]:
        """Names that do the same, those that the user wishes before the others. What follows a
        prompt stays behind it."""
        wished = {fold(known) for known, _ in self.columns} - set(PROMPT_ENDS)
        return sorted(names, key=lambda name: name not in wished)

    def applied(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row, by folded names, with the user's columns under the known names."""
        wished = self.paths(row)
        others = {name: value for name, value in row.items() if name not in wished.values()}
        return {**others, **{known: value_at(row, path) for known, path in wished.items()}}


# The wishes of a user who says nothing.
AS_FOUND = Wishes()


@dataclass(frozen=True)
class Layout:
    """How every row of one file is read: its forms, and of each the columns of prompt and choice,
    or nothing, and the coding of its choices. The texts of all rows begin with the prompt in some
    forms, and are messages in some."""

    where: str
    wishes: Wishes
    forms: tuple[Form, ...]
    prompts: tuple[str, ...]
    choices: tuple[str, ...]
    codings: Mapping[Form, Coding]
    columns: Mapping[str, str]
    repeats_prompt: frozenset[Form]
    as_messages: frozenset[Form]
    has_prompt: bool

    @property
    def paths(self) -> set[str]:
        """The known names of the columns that are read."""
        wished = {fold(known) for known, _ in self.wishes.columns}
        paths = {*SYSTEMS, *IDS[:1], *wished.intersection(IDS)}
        for form, prompt, choice in zip(self.forms, self.prompts, self.choices, strict=True):
            paths |= {form.first, form.second, prompt, choice, *form.one_hot, *form.ratings}
            paths |= {*form.tools, *messages_beside(prompt, form)}
            paths |= set(PROMPT_ENDS) if prompt else set()
        return paths

    @property
    def used(self) -> set[str]:
        """The folded names of the columns that are read, as the file has them."""
        wished = self.wishes.paths(self.columns)
        read = {wished.get(path, path) for path in self.paths}
        return read | {path.split(".")[0] for path in read}

    @property
    def unused(self) -> list[str]:
        """Columns, as written, that are not read."""
        return [written for name, written in self.columns.items() if name not in self.used]

    @property
    def unused_meaning(self) -> list[str]:
        """The unused columns whose names suggest that a human read or wrote what they hold."""
        return [name for name in self.unused if MEANING.search(fold(name))]

    def comparisons(self, raw: Mapping[Any, Any], place: str) -> Iterator[Row]:
        """The comparisons of one row, usually one. What is refused is yielded as Quarantined, so
        that no row raises an error."""
        try:
            row = self.wishes.applied(folded(raw))
            at = self._form_of(row)
            form = self.forms[at]
            prompt, ends, system = self._prompt(row, at), self._ends(row, at), self._system(row)
            ids = (str(row[n]) for n in self.wishes.first(IDS) if isinstance(row.get(n), str | int))
            name = next((one for one in ids if one.strip()), None)
            beside = self._beside(row, at)
            found = [beside[1:]] if beside else list(responses(row, form))
            choice = self._choice(row, at)
            for number, (first, second) in enumerate(found, 1):
                where = place if len(found) == 1 else f"{place}#{number}"
                try:
                    texts, messages = (
                        from_parts(beside[0], system, first, second)
                        if beside
                        else self._texts(prompt, ends, system, first, second, form)
                    )
                    if messages:
                        messages = replace(messages, tools=_tools(row, form))
                except Refusal as refusal:
                    yield Quarantined(where, refusal.reason, refusal.detail, name, number)
                    continue
                columns = (self.written(form.first), self.written(form.second))
                yield Comparison(
                    where, *texts, choice, name, columns, messages, form.decides, number
                )
        except Refusal as refusal:
            yield Quarantined(place, refusal.reason, refusal.detail)

    def written(self, path: str) -> str:
        """The user's own name of a column, or of a value within one."""
        named = self.wishes.paths(self.columns)
        known = path if path in named else path.partition(".")[0]
        source = named.get(known, known) + path.removeprefix(known)
        column = source if source in self.columns else source.partition(".")[0]
        return self.columns.get(column, column) + source.removeprefix(column)

    def _form_of(self, row: Mapping[str, Any]) -> int:
        """The index of the first form that the row holds, preferably one for which it has a choice
        too. Raises Refusal if it holds none."""
        fitting = [
            at
            for at, form in enumerate(self.forms)
            if value_at(row, form.first) is not None or value_at(row, form.second) is not None
        ]
        if not fitting:
            refuse("missing columns", f"found {names(row)}; looked for: {ACCEPTED}. {REMEDY}")
        decided = (
            at for at in fitting
            if self.forms[at].decides or self.forms[at].one_hot
            or self._written_choice(row, at) is not None
        )  # fmt: skip
        return next(decided, fitting[0])

    def _system(self, row: Mapping[str, Any]) -> str:
        texts = (row.get(name) for name in self.wishes.first(SYSTEMS))
        return next((text for text in texts if isinstance(text, str) and text.strip()), "")

    def _prompt(self, row: Mapping[str, Any], at: int) -> str | Messages | None:
        path, form = self.prompts[at], self.forms[at]
        value = value_at(row, path) if path else None
        if value is None or value == "":
            return None
        if form.verbatim and isinstance(value, str):
            return value
        if form.turns:
            value = only_turn(value, path)
        return text_or_messages(value, path)

    def _ends(self, row: Mapping[str, Any], at: int) -> Texts:
        """The texts that belong after the prompt. Raises Refusal for what is no text."""
        path = self.prompts[at]
        if not path or self.forms[at].verbatim:
            return ()
        # A column may hold the prompt, or what the user names, in its nested values.
        nested = {p.partition(".")[0] for p in (path, *self.wishes.paths(row).values()) if "." in p}
        found = [n for n in PROMPT_ENDS if n != path and n not in nested]
        return tuple(text for n in found for text in text_list(row.get(n), n))

    def _beside(
        self, row: Mapping[str, Any], at: int
    ) -> tuple[Messages, Messages, Messages] | None:
        """The messages of prompt and responses, if they stand in columns of their own beside their
        transcripts. Raises Refusal if they cannot be read."""
        columns = messages_beside(self.prompts[at], self.forms[at])
        values = [row.get(name) for name in columns]
        if any(value in (None, "", []) for value in values):
            return None
        said = []
        for value, name in zip(values, columns, strict=True):
            messages = text_or_messages(value, name)
            if not isinstance(messages, list):
                refuse("bad messages", f"{name} holds a text, no messages")
            said.append(messages)
        history, one, two = said
        if {one[-1]["role"], two[-1]["role"]} != {"assistant"}:
            refuse("bad messages", "a response does not end with an assistant's message")
        return history, one, two

    def _written_choice(self, row: Mapping[str, Any], at: int) -> str | None:
        path = self.choices[at]
        return folded_choice(value_at(row, path)) if path else None

    def _choice(self, row: Mapping[str, Any], at: int) -> int | None:
        form, path = self.forms[at], self.choices[at]
        if form.decides:
            return 1
        if form.one_hot:
            won = [folded_choice(row.get(name)) in ("1", "true") for name in form.one_hot]
            if sum(won) != 1:
                return None
            if won[2]:
                refuse("tie", "both responses were found equal")
            return 1 if won[0] else 2
        value = self._written_choice(row, at)
        if value is None:
            return None
        coding = self.codings.get(form)
        choice = coding.choice(value) if coding else None
        if choice == 0:
            refuse("tie", f"{path} is {ascii(value)[:40]}")
        if choice is None:
            refuse("bad choice", f"{path} is {ascii(value)[:40]}; read: {coding}")
        return choice

    def _texts(
        self,
        prompt: str | Messages | None,
        ends: Texts,
        system: str,
        first: Any,
        second: Any,
        form: Form,
    ) -> tuple[tuple[str, str, str], MessagesOf | None]:
        if form.verbatim and all(isinstance(text, str) for text in (prompt, first, second)):
            return (str(prompt), first, second), None
        one, two = self._said(prompt, first, second, form)
        if isinstance(prompt, list) and isinstance(one, str) and isinstance(two, str):
            one, two = ([{"role": "assistant", "content": text}] for text in (one, two))
        if isinstance(one, list) and isinstance(two, list):
            return from_messages(prompt, ends, system, one, two)
        if not (isinstance(one, str) and isinstance(two, str)) or isinstance(prompt, list):
            refuse("not text", "some of prompt and responses are texts, others messages")
        texts = self._from_texts(prompt and extended_text(prompt, ends), one, two, form)
        if system and not texts[0].startswith(system):
            gap = "" if texts[0].startswith(HUMAN) else "\n\n"
            texts = (f"{system}{gap}{texts[0]}", texts[1], texts[2])
        return texts, None

    def _said(
        self, prompt: str | Messages | None, first: Any, second: Any, form: Form
    ) -> tuple[str | Messages, str | Messages]:
        """Two responses as texts or messages. Beside a prompt of text, texts are messages only if
        those of all rows are: what looks like messages may be an answer."""
        texts = isinstance(first, str) and isinstance(second, str)
        asked = isinstance(prompt, str) and bool(prompt.strip())
        if texts and asked and form not in self.as_messages:
            return first, second
        return text_or_messages(first, form.first), text_or_messages(second, form.second)

    def _from_texts(
        self, prompt: str | None, one: str, two: str, form: Form
    ) -> tuple[str, str, str]:
        transcripts = is_transcript(one) or is_transcript(two)
        if prompt is not None and prompt.strip():
            begins = one.startswith(prompt) and two.startswith(prompt)
            if begins and (form in self.repeats_prompt or is_transcript(prompt + " ")):
                return prompt, one.removeprefix(prompt), two.removeprefix(prompt)
            lead = f"{HUMAN} {prompt.strip()}{ASSISTANT}"
            if one.startswith(lead) and two.startswith(lead):
                return from_transcripts(one, two)
            return prompt, one, two
        if transcripts:
            return from_transcripts(one, two)
        if self.has_prompt:
            refuse("empty prompt", "the prompt's column is blank")
        if prompt is not None or not self.forms[0].decides:
            refuse("empty prompt", "no column holds a prompt")
        return common_words(one, two)


def folded(raw: Mapping[Any, Any]) -> dict[str, Any]:
    """The row by folded column names. Raises Refusal if two columns have the same one."""
    row = {fold(name): value for name, value in raw.items()}
    if len(row) < len(raw):
        refuse("two columns of one name", names(raw))
    return row


def messages_beside(prompt: str, form: Form) -> tuple[str, str, str]:
    """The columns that hold the messages of prompt and responses where the columns of these hold
    their transcripts, as in the tables of the store and in pairs that humans are asked about."""
    return f"{prompt}_messages", f"{form.first}_messages", f"{form.second}_messages"


def _tools(row: Mapping[str, Any], form: Form) -> str | None:
    path = next((path for path in form.tools if value_at(row, path)), form.tools[0])
    return tools_text(value_at(row, path), path)
