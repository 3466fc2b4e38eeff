"""Turn the rows of a file into comparisons, by the form that the file as a whole has."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from weakteach.preferences.candidates import only_turn, responses
from weakteach.preferences.cuts import common_words, from_messages, from_transcripts
from weakteach.preferences.forms import (
    ACCEPTED,
    CHOICES,
    FORMS,
    IDS,
    MEANING,
    PROMPT_ENDS,
    PROMPTS,
    REMEDY,
    SYSTEMS,
    TIES,
    Coding,
    Form,
    find_coding,
    find_forms,
    fold,
    folded_choice,
    names,
    no_form,
    value_at,
)
from weakteach.preferences.messages import (
    ASSISTANT,
    HUMAN,
    Messages,
    Refusal,
    dumped,
    is_transcript,
    refuse,
    text_or_messages,
)
from weakteach.preferences.pair import Comparison, DataError, MessagesOf, Quarantined

Row = Comparison | Quarantined

# The place of a row in its file, and the row as the reader of the file gives it.
Record = tuple[str, Mapping[Any, Any]]

DOTTED = {p for f in FORMS for p in (f.first, f.second, *f.prompt, *f.choice) if "." in p}
CHOICE_PATHS = {p for f in FORMS for p in f.choice} | set(CHOICES)
# How many distinct values of a choice column are remembered.
MAX_VALUES = 64


@dataclass(frozen=True)
class Wishes:
    """What a user says about the columns of his data; part of the identity of a source.

    ``columns`` are pairs of a known name and the user's column that stands for it.
    ``choice_values`` are the values of the choice column for the first and the second response.
    """

    columns: tuple[tuple[str, str], ...] = ()
    choice_values: tuple[str, str] | None = None

    def __post_init__(self) -> None:
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


# The wishes of a user who says nothing.
AS_FOUND = Wishes()


@dataclass
class FileSurvey:
    """What is found out from all rows of one file together, before any is read as a pair."""

    where: str
    wishes: Wishes = AS_FOUND
    rows: int = 0
    refused: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    filled: set[str] = field(default_factory=set)
    values: dict[str, set[str]] = field(default_factory=dict)
    repeated: int = 0
    prompted: int = 0

    def add_columns(self, header: list[str]) -> None:
        """Add the header of a table. Raises DataError if two columns have the same folded name."""
        for name in header:
            if (folded_name := fold(name)) in self.columns:
                raise DataError(
                    f"{self.where} has two columns of one name, {self.columns[folded_name]!a} and "
                    f"{name!a}. Rename or remove one of them."
                )
            self.columns[folded_name] = name

    def add(self, raw: Mapping[Any, Any]) -> None:
        self.rows += 1
        for name in raw:
            self.columns.setdefault(fold(name), str(name))
        try:
            row = folded(raw, self.wishes)
        except Refusal:
            return
        self.filled.update(name for name, value in row.items() if value not in (None, "", [], {}))
        self.filled.update(path for path in DOTTED - self.filled if value_at(row, path) is not None)
        for path in CHOICE_PATHS & self.filled:
            value = folded_choice(value_at(row, path))
            known = self.values.setdefault(path, set())
            if value is not None and len(known) < MAX_VALUES:
                known.add(value)
        prompt = next((row[p] for p in PROMPTS if isinstance(row.get(p), str) and row[p]), None)
        if prompt is not None and prompt.strip():
            self.prompted += 1
            texts = (
                row.get("chosen", row.get("response_1")),
                row.get("rejected", row.get("response_2")),
            )
            self.repeated += all(isinstance(t, str) and t.startswith(prompt) for t in texts)

    def layout(self) -> "Layout":
        """How the rows of the file are read, if it is all of its source. Raises DataError."""
        return layouts([self])[0]

    def forms(self) -> list[Form]:
        """The forms that the file holds, the best first. Raises DataError if there is none."""
        for target, source in self.wishes.columns:
            if fold(target) not in self.filled | set(self.columns) or (
                fold(source) not in self.columns and fold(source).split(".")[0] not in self.columns
            ):
                raise DataError(
                    f"{self.where} has no column {source!a} for --columns {target}={source}; "
                    f"its columns are {names(self.columns.values())}."
                )
        available = set(self.columns) | self.filled
        available |= {fold(target) for target, _ in self.wishes.columns}
        forms = find_forms(available)
        if not forms:
            raise no_form(self.columns.values(), self.where)
        return [f for f in forms if {f.first, f.second} & self.filled] or forms[:1]

    def choice_columns(self, form: Form) -> list[str]:
        """The columns that can hold the form's choices, the likeliest first."""
        return [path for path in form.choice if path in self.filled | set(self.columns)]


def layouts(surveys: Sequence[FileSurvey]) -> list["Layout"]:
    """How the rows of the files of one source are read. Files that have the choices of a form in
    the same column write them in the same way, so the values of all of them are judged together.

    Raises DataError if no form fits the columns of a file, or if it cannot be told which column
    holds the choices, or what they mean.
    """
    found = [(seen, seen.forms()) for seen in surveys]
    paths: list[dict[Form, str]] = [{} for _ in found]
    codings: dict[tuple[Form, str], Coding] = {}
    for form in dict.fromkeys(form for _, forms in found for form in forms):
        holding = [(seen, at) for at, (seen, forms) in enumerate(found) if form in forms]
        read = _choice_paths([seen for seen, _ in holding], form)
        sharing: dict[str, list[FileSurvey]] = {}
        for (seen, at), path in zip(holding, read, strict=True):
            paths[at][form] = path
            sharing.setdefault(path, []).append(seen)
        for path, files in sharing.items():
            if values := set().union(*(seen.values.get(path, ()) for seen in files)) - TIES:
                more = f" and {len(files) - 1} more" if len(files) > 1 else ""
                wanted = files[0].wishes.choice_values
                codings[form, path] = find_coding(values, form, path, files[0].where + more, wanted)
    return [
        Layout(
            seen.where,
            seen.wishes,
            tuple(forms),
            tuple(next((p for p in f.prompt if p in seen.filled), "") for f in forms),
            tuple(path[f] for f in forms),
            {f: codings[f, path[f]] for f in forms if (f, path[f]) in codings},
            dict(seen.columns),
            seen.prompted > 0 and seen.repeated == seen.prompted,
            any(p in seen.columns for p in ("prompt", "question", "instruction")),
        )
        for (seen, forms), path in zip(found, paths, strict=True)
    ]


def _choice_paths(surveys: Sequence[FileSurvey], form: Form) -> list[str]:
    """For each of the files of a source that have the form, the column of its choices: the first
    that holds any in one of the files; nothing if there is none.

    Raises DataError if an earlier column is empty in all files, or if another file has choices in
    that column, but in an earlier one, too: the column may then be about something else.
    """
    held = {path for seen in surveys for path in form.choice if seen.values.get(path)}
    columns = [seen.choice_columns(form) for seen in surveys]
    read = [next((path for path in found if path in held), "") for found in columns]
    beside = {
        path: one
        for seen, one, found in zip(surveys, read, columns, strict=True)
        for path in found
        if path != one and seen.values.get(path)
    }
    for seen, path, found in zip(surveys, read, columns, strict=True):
        if other := beside.get(path) or (path and found[0] != path and found[0]):
            raise DataError(
                f"{seen.where}: it cannot be told whether its choices are in "
                f"{seen.columns.get(path, path)!a} or in {seen.columns.get(other, other)!a}, which "
                "holds none there. Say it with --columns, such as --columns choice=NAME."
            )
    return read


@dataclass(frozen=True)
class Layout:
    """How every row of one file is read: its forms, and of each the columns of prompt and choice,
    or nothing, and the coding of its choices."""

    where: str
    wishes: Wishes
    forms: tuple[Form, ...]
    prompts: tuple[str, ...]
    choices: tuple[str, ...]
    codings: Mapping[Form, Coding]
    columns: Mapping[str, str]
    repeats_prompt: bool
    has_prompt: bool

    @property
    def used(self) -> set[str]:
        """The folded names of the columns that are read."""
        paths = {"tools", *SYSTEMS, *IDS[:1]}
        for form, prompt, choice in zip(self.forms, self.prompts, self.choices, strict=True):
            paths |= {form.first, form.second, prompt, choice, *form.one_hot}
            paths |= set(PROMPT_ENDS) if prompt else set()
        sources = {fold(source) for _, source in self.wishes.columns}
        return {path.split(".")[0] for path in paths | sources}

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
            row = folded(raw, self.wishes)
            at = self._form_of(row)
            form = self.forms[at]
            prompt, system = self._prompt(row, at), _system(row)
            name = next((str(row[n]) for n in IDS if isinstance(row.get(n), str | int)), None)
            found = list(responses(row, form))
            choice = self._choice(row, at)
            for number, (first, second) in enumerate(found, 1):
                where = place if len(found) == 1 else f"{place}#{number}"
                try:
                    texts, messages = self._texts(prompt, system, first, second, form)
                except Refusal as refusal:
                    yield Quarantined(where, refusal.reason, refusal.detail, name)
                    continue
                if messages and row.get("tools"):
                    messages = replace(messages, tools=dumped(row["tools"]))
                columns = (self._written(form.first), self._written(form.second))
                yield Comparison(where, *texts, choice, name, columns, messages)
        except Refusal as refusal:
            yield Quarantined(place, refusal.reason, refusal.detail)

    def _written(self, path: str) -> str:
        return self.columns.get(path, path)

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

    def _prompt(self, row: Mapping[str, Any], at: int) -> str | Messages | None:
        path, form = self.prompts[at], self.forms[at]
        value = value_at(row, path) if path else None
        if value is None or value == "":
            return None
        if form.turns:
            value = only_turn(value, path)
        prompt = text_or_messages(value, path)
        if isinstance(prompt, str):
            for name in PROMPT_ENDS:
                more = row.get(name)
                if name != path and isinstance(more, str) and more.strip() and more not in prompt:
                    prompt = f"{prompt}\n\n{more}"
        return prompt

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
        self, prompt: str | Messages | None, system: str, first: Any, second: Any, form: Form
    ) -> tuple[tuple[str, str, str], MessagesOf | None]:
        one, two = text_or_messages(first, form.first), text_or_messages(second, form.second)
        if isinstance(prompt, list) and isinstance(one, str) and isinstance(two, str):
            one, two = ([{"role": "assistant", "content": text}] for text in (one, two))
        if isinstance(one, list) and isinstance(two, list):
            return from_messages(prompt, system, one, two)
        if not (isinstance(one, str) and isinstance(two, str)) or isinstance(prompt, list):
            refuse("not text", "some of prompt and responses are texts, others messages")
        texts = self._from_texts(prompt, one, two)
        if system and not texts[0].startswith(system):
            gap = "" if texts[0].startswith(HUMAN) else "\n\n"
            texts = (f"{system}{gap}{texts[0]}", texts[1], texts[2])
        return texts, None

    def _from_texts(self, prompt: str | None, one: str, two: str) -> tuple[str, str, str]:
        transcripts = is_transcript(one) or is_transcript(two)
        if prompt is not None and prompt.strip():
            begins = one.startswith(prompt) and two.startswith(prompt)
            if begins and (self.repeats_prompt or is_transcript(prompt + " ")):
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


def folded(raw: Mapping[Any, Any], wishes: Wishes) -> dict[str, Any]:
    """The row by folded column names, with the user's columns under the known names that they
    stand for. Raises Refusal if two columns have the same folded name."""
    row = {fold(name): value for name, value in raw.items()}
    if len(row) < len(raw):
        refuse("two columns of one name", names(raw))
    taken = {fold(target): value_at(row, fold(source)) for target, source in wishes.columns}
    for _, source in wishes.columns:
        row.pop(fold(source), None)
    return {**row, **taken}


def _system(row: Mapping[str, Any]) -> str:
    texts = (row.get(name) for name in SYSTEMS)
    return next((text for text in texts if isinstance(text, str) and text.strip()), "")
