"""Survey all rows of a file, and find how the files of a source are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weakteach.preferences.forms import (
    CHOICES,
    FORMS,
    PROMPTS,
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
from weakteach.preferences.messages import Refusal
from weakteach.preferences.pair import DataError
from weakteach.preferences.rows import AS_FOUND, Layout, Wishes, folded

DOTTED = {p for f in FORMS for p in (f.first, f.second, *f.prompt, *f.choice) if "." in p}
CHOICE_PATHS = {p for f in FORMS for p in f.choice} | set(CHOICES)
# How many distinct values of a choice column are remembered.
MAX_VALUES = 64


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

    def layout(self) -> Layout:
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


def layouts(surveys: Sequence[FileSurvey]) -> list[Layout]:
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
