"""Survey all rows of a file, and find how the files of a source are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from weakteach.preferences.forms import (
    ASKED,
    CHOICE_PATHS,
    FORMS,
    PAIR_ID,
    PROMPT_ENDS,
    PROMPTS,
    SIGNED,
    TIES,
    Coding,
    Form,
    find_coding,
    find_forms,
    fold,
    folded_choice,
    is_asked,
    leads,
    names,
    no_form,
    value_at,
)
from weakteach.preferences.messages import Refusal, is_conversation
from weakteach.preferences.pair import DataError
from weakteach.preferences.rows import AS_FOUND, Layout, Wishes, folded

DOTTED = {p for f in FORMS for p in (f.first, f.second, *f.prompt, *f.choice) if "." in p}
TEXT_FORMS = tuple(form for form in FORMS if not form.ranked and not form.turns)
# How many distinct values of a choice column are remembered.
MAX_VALUES = 64


@dataclass
class FileSurvey:
    """What is found out from all rows of one file together, before any is read as a pair.

    ``columns`` are the names as written by the folded ones. All else is by the known names for
    which the user's columns stand: those that hold anything, the values of choices, and the wished
    ones whose columns are there, if only empty.
    """

    where: str
    wishes: Wishes = AS_FOUND
    rows: int = 0
    refused: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    filled: set[str] = field(default_factory=set)
    wished: set[str] = field(default_factory=set)
    # Whether the ids of pairs are such as weakteach writes: True, False or both.
    own_ids: set[bool] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    values: dict[str, set[str]] = field(default_factory=dict)
    # Whether the texts of two responses begin with the prompt: True, False or both.
    repeats: dict[tuple[str, str], set[bool]] = field(default_factory=dict)
    # The same of whether they are messages, written as texts.
    conversations: dict[tuple[str, str], set[bool]] = field(default_factory=dict)

    def add_columns(self, header: list[str]) -> None:
        """Add the header of a table. Raises DataError if two columns have the same folded name."""
        for name in header:
            if (folded_name := fold(name)) in self.columns:
                raise DataError(
                    f"{self.where} has two columns of one name, {self.columns[folded_name]!a} and "
                    f"{name!a}. Rename or remove one of them."
                )
            self.columns[folded_name] = name
        paths = self.wishes.paths(self.columns)
        self.wished.update(known for known, path in paths.items() if path in self.columns)

    def add(self, raw: Mapping[Any, Any]) -> None:
        self.rows += 1
        for name in raw:
            self.columns.setdefault(fold(name), str(name))
        try:
            found = folded(raw)
        except Refusal:
            return
        if (pair_id := found.get("pair_id")) not in (None, ""):
            self.own_ids.add(PAIR_ID.fullmatch(str(pair_id)) is not None)
        row, paths = self.wishes.applied(found), self.wishes.paths(found)
        self.wished.update(known for known, path in paths.items() if leads(found, path))
        self.hidden.update(n for n in CHOICE_PATHS & set(paths) if folded_choice(found.get(n)))
        self.filled.update(name for name, value in row.items() if value not in (None, "", [], {}))
        self.filled.update(path for path in DOTTED - self.filled if value_at(row, path) is not None)
        for path in CHOICE_PATHS & self.filled:
            value = folded_choice(value_at(row, path))
            known = self.values.setdefault(path, set())
            if value is not None and len(known) < MAX_VALUES:
                known.add(value)
        for responses, lead, prompts in self._text_columns:
            if lead in row:
                self._see_texts(row, responses, prompts)

    @cached_property
    def _text_columns(self) -> list[tuple[tuple[str, str], str, list[str]]]:
        """Columns of two responses that may repeat a prompt, the column that leads to the first of
        them, and the columns that can hold the prompt, the likeliest first."""
        prompts: dict[tuple[str, str], list[str]] = {}
        for form in TEXT_FORMS:
            prompts.setdefault((form.first, form.second), []).extend(form.prompt)
        return [
            (
                responses,
                responses[0].partition(".")[0],
                self.wishes.first(list(dict.fromkeys([*found, *PROMPTS]))),
            )
            for responses, found in prompts.items()
        ]

    def _see_texts(
        self, row: Mapping[str, Any], responses: tuple[str, str], prompt_columns: list[str]
    ) -> None:
        prompts = (value_at(row, name) for name in prompt_columns)
        prompt = next((text for text in prompts if isinstance(text, str) and text), "")
        texts = tuple(value_at(row, path) for path in responses)
        said = {is_conversation(text) for text in texts if isinstance(text, str) and text}
        self.conversations.setdefault(responses, set()).update(said)
        if prompt.strip() and texts != (None, None):
            repeats = all(isinstance(text, str) and text.startswith(prompt) for text in texts)
            self.repeats.setdefault(responses, set()).add(repeats)

    def layout(self) -> Layout:
        """How the rows of the file are read, if it is all of its source. Raises DataError."""
        return layouts([self])[0]

    @property
    def is_asked(self) -> bool:
        """Whether the file holds pairs that humans were asked about, as weakteach writes them."""
        return is_asked(set(self.columns)) and self.own_ids == {True}

    @property
    def known(self) -> set[str]:
        """The names of all columns, the known ones in place of those that stand for them."""
        own = set(self.wishes.paths(self.columns).values())
        return set(self.columns) - own | self.wished | self.filled

    def forms(self, elsewhere: set[str]) -> list[Form]:
        """The forms that the file holds, the best first: of all that fit, those that read most of
        the wished columns. ``elsewhere`` are wishes whose columns other files of the source have.

        Raises DataError if no form fits, or if a wished column is missing. Only one of choices may
        be missing, in a file that has none.
        """
        if self.is_asked and self.wishes == AS_FOUND:
            return [ASKED]
        self._refuse_missing(elsewhere | CHOICE_PATHS)
        paths = self.wishes.paths(self.columns)
        fitting = find_forms(self.known, paths.values())
        if not fitting:
            raise no_form(self.columns.values(), self.where)
        read = {form: len(form.wished(paths).paths & self.wished) for form in fitting}
        forms = [form for form in fitting if read[form] == max(read.values())]
        forms = [f for f in forms if {f.first, f.second} & self.filled] or forms[:1]
        held = self.hidden | {path for path, values in self.values.items() if values}
        if any(form.decides or form.one_hot or held & set(form.choice) for form in forms):
            self._refuse_missing(elsewhere)
        # Of forms with the same responses only the best: a row must not take its choice from a
        # column of another one.
        best = {(form.first, form.second): form for form in reversed(forms)}
        return [form.wished(paths) for form in forms if best[form.first, form.second] is form]

    def _refuse_missing(self, excused: set[str]) -> None:
        """Raise DataError for a wished column that is missing, unless its known name is excused: of
        the excused, only choices may be missing."""
        for known, own in self.wishes.columns:
            name = fold(known)
            if name not in self.wished and name not in excused & CHOICE_PATHS:
                raise DataError(
                    f"{self.where} has no column {own!a} for --columns {known}={own}; "
                    f"its columns are {names(self.columns.values())}."
                )

    def prompt_path(self, form: Form) -> str:
        """The column of the form's prompt, or nothing if it is within both texts."""
        found = [path for path in form.prompt if path in self.filled]
        return next(iter(found or [path for path in form.prompt if path in self.wished]), "")

    def has_prompt(self) -> bool:
        """Whether there is a column that is named as the prompt, if only an empty one."""
        named = {"prompt", "question", "instruction"} | self.wished.intersection(PROMPTS)
        return bool(self.known & named - set(PROMPT_ENDS))

    def repeats_prompt(self, form: Form) -> bool:
        """Whether both texts of every row begin with its prompt."""
        return not form.verbatim and self.repeats.get((form.first, form.second)) == {True}

    def holds_messages(self, form: Form) -> bool:
        """Whether all texts of the responses are messages, written as texts."""
        return self.conversations.get((form.first, form.second)) == {True}

    def choice_columns(self, form: Form) -> list[str]:
        """The columns that can hold the form's choices, the likeliest first."""
        return [path for path in form.choice if path in self.known]

    def choice_name(self, path: str) -> str:
        """The user's name of a column of choices, unless the known one says more."""
        return path if path in SIGNED else self.wishes.paths(self.columns).get(path, path)

    def refuse_unread(self, layout: Layout) -> None:
        """Raise DataError if a wished column holds anything, but is not read."""
        read_in = layout.paths | {path.partition(".")[0] for path in layout.paths}
        for known, own in self.wishes.columns:
            if (name := fold(known)) in self.filled and name not in read_in:
                read = " and ".join(dict.fromkeys(form.name for form in layout.forms))
                raise DataError(
                    f"{self.where} is read in the form {read}, which has no use for --columns "
                    f"{known}={own}. Leave it out, or name the columns of the responses, too."
                )


def layouts(surveys: Sequence[FileSurvey]) -> list[Layout]:
    """How the rows of the files of one source are read. Files that have the choices of a form in
    the same column write them in the same way, so the values of all of them are judged together.

    Raises DataError if no form fits the columns of a file, or if it cannot be told which column
    holds the choices, or what they mean.
    """
    wished = set().union(*(seen.wished for seen in surveys))
    found = [(seen, seen.forms(wished)) for seen in surveys]
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
                name = files[0].choice_name(path)
                codings[form, path] = find_coding(values, form, name, files[0].where + more, wanted)
    read_so = [
        Layout(
            seen.where,
            seen.wishes,
            tuple(forms),
            tuple(seen.prompt_path(form) for form in forms),
            tuple(path[f] for f in forms),
            {f: codings[f, path[f]] for f in forms if (f, path[f]) in codings},
            dict(seen.columns),
            frozenset(form for form in forms if seen.repeats_prompt(form)),
            frozenset(form for form in forms if seen.holds_messages(form)),
            seen.has_prompt(),
        )
        for (seen, forms), path in zip(found, paths, strict=True)
    ]
    for seen, layout in zip(surveys, read_so, strict=True):
        seen.refuse_unread(layout)
    return read_so


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
