"""Reading a source: a survey of its files, their rows as comparisons, and an overview of it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from weakteach.preferences.pair import Comparison, Quarantined, canonical_pair, refusal
from weakteach.preferences.readers import Header, Note, Read
from weakteach.preferences.rows import AS_FOUND, Layout, Row, Wishes
from weakteach.preferences.surveys import FileSurvey, layouts

# A share of quarantined rows above which a user should look before he goes on.
MANY_QUARANTINED = 0.05


def survey(
    records: Callable[[], Iterator[Read]], where: str, wishes: Wishes
) -> tuple[FileSurvey, list[Note]]:
    """Survey all rows of a file, which ``records`` reads from its beginning, and collect the notes
    on them. What a user says of his columns is not about pairs that weakteach wrote for humans.
    Raises DataError if two columns have the same name."""
    seen = FileSurvey(where, wishes)
    notes = []
    for record in records():
        if isinstance(record, Header):
            seen.add_columns(record.columns)
        elif isinstance(record, Note):
            notes.append(record)
        elif isinstance(record, Quarantined):
            seen.refused += 1
        else:
            seen.add(record[1])
    if seen.is_asked and wishes != AS_FOUND:
        return survey(records, where, AS_FOUND)
    return seen, notes


def source_rows(
    files: Sequence[tuple[FileSurvey, Callable[[], Iterator[Read]]]],
) -> Iterator[Row]:
    """The rows of the files of one source as comparisons. Each file is given by its survey, and by
    a function that reads it from its beginning.

    Raises DataError if no form fits the columns, or if it cannot be told what the choices mean.
    """
    found = iter(layouts([seen for seen, _ in files if seen.rows]))
    for seen, records in files:
        layout = next(found) if seen.rows else None
        for record in records():
            if isinstance(record, Quarantined):
                yield record
            elif isinstance(record, tuple) and layout is not None:
                yield from layout.comparisons(record[1], record[0])


@dataclass(frozen=True)
class Recognized:
    """How one file is read: form, columns and the coding of its choices."""

    where: str
    forms: tuple[str, ...]
    prompt: str
    responses: tuple[str, str]
    choices: str
    unused: tuple[str, ...]
    unused_meaning: tuple[str, ...]
    notes: tuple[str, ...]

    @classmethod
    def each(cls, files: Sequence[tuple[FileSurvey, list[Note]]]) -> tuple["Recognized", ...]:
        """How the files of one source are read, from the survey and the notes of each. Raises
        DataError."""
        held = [(seen, notes) for seen, notes in files if seen.rows or seen.columns]
        found = layouts([seen for seen, _ in held])
        return tuple(cls.of(one, notes) for one, (_, notes) in zip(found, held, strict=True))

    @classmethod
    def of(cls, layout: Layout, notes: Iterable[Note]) -> "Recognized":
        form = layout.forms[0]
        told = [f"{note.place}: {note.text}" for note in notes]
        if layout.repeats_prompt:
            told.append("the prompt, which begins both texts of every row, is read once")
        coding = layout.codings.get(form)
        known = "chosen and rejected are columns" if form.decides else "none"
        return cls(
            layout.where,
            tuple(f.name for f in layout.forms),
            layout.written(layout.prompts[0]) or "inside both texts",
            (layout.written(form.first), layout.written(form.second)),
            ", ".join(form.one_hot) or (str(coding) if coding else known),
            tuple(layout.unused),
            tuple(layout.unused_meaning),
            tuple(told),
        )


@dataclass
class Overview:
    """What a source holds, without the lengths of its pairs: no model has read them yet.

    ``reasons`` counts the rows in quarantine by reason, ``examples`` holds the first row of each
    reason. Of all ``choices``, ``first_chosen`` are of the user's first response.
    """

    name: str
    files: tuple[Recognized, ...]
    rows: int = 0
    pairs: int = 0
    choices: int = 0
    first_chosen: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Quarantined] = field(default_factory=dict)

    @property
    def quarantined(self) -> int:
        return self.rows - self.pairs

    @property
    def quarantined_share(self) -> float:
        return self.quarantined / self.rows if self.rows else 0.0

    @property
    def loses_many(self) -> bool:
        return self.quarantined_share > MANY_QUARANTINED


def overview(name: str, files: tuple[Recognized, ...], rows: Iterable[Row]) -> Overview:
    """The counts that the tables of these rows will have if no pair turns out to be too long or not
    readable."""
    found = Overview(name, files)
    places: dict[str, str] = {}
    known: dict[str, int | None] = {}
    first_chosen: set[str] = set()
    again: dict[str, list[str]] = {}
    against: set[str] = set()
    for row in rows:
        found.rows += 1
        if isinstance(row, Comparison) and (reason := refusal(row)):
            row = Quarantined(row.place, reason, "", row.id)
        if isinstance(row, Quarantined):
            _refused(found, row)
            continue
        pair, choice = canonical_pair(row)
        if places.setdefault(pair.pair_id, row.place) is not row.place:
            again.setdefault(pair.pair_id, []).append(row.place)
        before = known.get(pair.pair_id)
        if choice is not None and before not in (None, choice):
            against.add(pair.pair_id)
        known[pair.pair_id] = choice if before is None else before
        if row.preferred == 1 and before is None:
            first_chosen.add(pair.pair_id)
    for pair_id, others in again.items():
        reason = "contradictory choices" if pair_id in against else "duplicate pair"
        for place in others if reason == "duplicate pair" else [places[pair_id], *others]:
            _refused(found, Quarantined(place, reason, pair_id))
    for pair_id in known.keys() - against:
        found.pairs += 1
        found.choices += known[pair_id] is not None
        found.first_chosen += pair_id in first_chosen
    return found


def _refused(found: Overview, row: Quarantined) -> None:
    found.reasons[row.reason] += 1
    found.examples.setdefault(row.reason, row)
