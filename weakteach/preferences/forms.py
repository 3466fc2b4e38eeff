"""The forms in which public data sets hold pairs, as one table, and how a file's form is found.

A new form is one entry of FORMS: the columns of its two responses and, where they differ from
the usual ones, of its prompt and its choice. A name with dots leads into nested values
(``summaries.0.text``). Names are folded first: ``" Response-1 "`` is ``response_1``.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from weakteach.preferences.pair import ASKED_COLUMNS, MESSAGE_COLUMNS, DataError

# Columns that can be the prompt, the likeliest first, and columns of texts that belong after it.
PROMPTS = (
    "prompt", "question", "instruction", "query", "input", "context", "conversations",
    "conversation", "messages", "history", "post", "problem", "article", "request",
)  # fmt: skip
PROMPT_ENDS = ("input", "context")
SYSTEMS = ("system", "system_prompt", "system_message")
IDS = ("id", "uid", "row_id", "sample_id", "example_id")
# Columns that are read in every form.
ALWAYS = ("tools", *PROMPT_ENDS, *SYSTEMS, *IDS)
CHOICES = (
    "choice", "preference", "preferred", "winner", "label", "labels", "better", "better_response",
    "preference_strength", "overall_preference", "preference_label", "human_preference",
    "choose_best", "ranking",
)  # fmt: skip
# Choices that are negative if the first response is better, and positive if the second one is.
SIGNED = ("preference_strength", "overall_preference")
# Pairs of numbers that choices may be.
NUMBERS = (("1", "2"), ("0", "1"))
TIES = {"tie", "tie (bothbad)", "tie (both bad)", "both", "bothbad", "neither", "equal", "draw"}

# Names of columns that hold part of what a human read or said, whether a form uses them or not.
MEANING = re.compile(
    r"prompt|question|instruction|query|input|system|context|history|reason|think|tool|message"
    r"|conversation|chosen|rejected|response|answer|completion|output|choice|prefer|winner|label"
)


@dataclass(frozen=True)
class Form:
    """Where two responses, their prompt and the choice between them stand in a row.

    Without ``choice`` and ``one_hot`` the first response is the chosen one. ``coding`` gives the
    values of the choice column for the first and the second response, if the form fixes them.
    ``one_hot`` are three columns that hold 1 if the first response won, the second one, or neither.
    ``turns`` says that texts are JSON lists with one text a turn. ``ranked`` says that a column
    holds a list of texts with ranks or scores, or that their ratings are a list in one of the
    columns ``ratings``: the best text is compared with each of the others. ``tools`` are where the
    tools that may be called can stand, the likeliest first. ``verbatim`` says that the texts are a
    pair's own and hold nothing to be found in them.
    """

    name: str
    first: str
    second: str
    prompt: tuple[str, ...] = PROMPTS
    choice: tuple[str, ...] = ()
    coding: tuple[str, str] | None = None
    one_hot: tuple[str, ...] = ()
    turns: bool = False
    ranked: bool = False
    ratings: tuple[str, ...] = ()
    tools: tuple[str, ...] = ("tools",)
    verbatim: bool = False

    @property
    def decides(self) -> bool:
        """Whether the form itself says which response is chosen: always the first."""
        return not self.choice and not self.one_hot

    @property
    def paths(self) -> set[str]:
        """All names that the form can read."""
        own = {self.first, self.second, *self.prompt, *self.choice, *self.one_hot, *self.ratings}
        return own | set(ALWAYS)

    def wished(self, columns: Mapping[str, str]) -> "Form":
        """The form as it reads a user's ``columns``, given by the known names that they stand for:
        in place of its own prompts, choices and ratings.

        Its coding is that of its own column, and stays if the user names that.
        """
        prompts = tuple(n for n in columns if n in {*self.prompt, *PROMPTS} - set(PROMPT_ENDS))
        ratings = tuple(name for name in columns if name in self.ratings)
        found = replace(self, prompt=prompts or self.prompt, ratings=ratings or self.ratings)
        choices = () if self.decides else tuple(n for n in columns if n in CHOICE_PATHS)
        if not choices:
            return found
        # The name choice is that of choices of any coding.
        named = {*choices} - {"choice"} | {columns[name] for name in choices}
        coding = self.coding if named & set(self.choice) else None
        return replace(found, choice=choices, coding=coding, one_hot=())


NUMBERED = ("response", "answer", "output", "completion", "reply", "candidate", "summary", "text")
FORMS = (
    Form("OpenAI DPO", "preferred_output", "non_preferred_output", ("input.messages", *PROMPTS),
         tools=("tools", "input.tools")),
    Form("chosen and rejected", "chosen", "rejected"),
    Form("chosen and rejected", "chosen_response", "rejected_response"),
    Form("chosen and rejected", "response_chosen", "response_rejected"),
    Form("Stack Exchange", "response_j", "response_k"),
    Form("Chatbot Arena", "conversation_a", "conversation_b", (), CHOICES),
    Form("Chatbot Arena (table)", "response_a", "response_b", turns=True,
         one_hot=("winner_model_a", "winner_model_b", "winner_tie")),
    Form("PKU-SafeRLHF", "response_0", "response_1", choice=("better_response_id",),
         coding=("0", "1")),
    Form("SHP", "human_ref_a", "human_ref_b", ("history",), ("labels",), ("1", "0")),
    Form("summarize from feedback", "summaries.0.text", "summaries.1.text",
         ("info.post", "info.article"), ("choice",), ("0", "1")),
    Form("Label Studio", "data.answer1", "data.answer2", ("data.prompt",),
         ("annotations.0.result.0.value.selected",)),
    Form("Nectar", "answers", "answers", ranked=True),
    Form("UltraFeedback", "completions", "completions", ranked=True),
    Form("distilabel ratings", "generations", "generations", ranked=True,
         ratings=("ratings", "rating")),
    *(Form(f"{stem}{ends[0]} and {stem}{ends[1]}", f"{stem}{ends[0]}", f"{stem}{ends[1]}",
           choice=CHOICES)
      for ends in (("_1", "_2"), ("1", "2"), ("_a", "_b"), ("_0", "_1")) for stem in NUMBERED),
)  # fmt: skip
# The form in which weakteach asks humans about pairs. It is known by all of its columns and by the
# ids of its pairs. Label Studio's CSV export has columns of its own beside them.
ASKED = Form("pairs that humans were asked about", "response_1", "response_2", ("prompt",),
             ("choice",), ("1", "2"), verbatim=True)  # fmt: skip
LABEL_STUDIO = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time")
PAIR_ID = re.compile(r"[0-9a-f]{32}")
CHOICE_PATHS = {p for f in FORMS for p in f.choice} | set(CHOICES)

# Forms with one response a row, which hold no pairs: their columns, and what their rows are.
UNPAIRED = (
    (("completion", "label"), "one judged response a row, as KTO takes them"),
    (("transcript",), "one transcript a row, as red-team data do"),
)
ACCEPTED = (
    "prompt, response_1, response_2 and if known choice (1 or 2); "
    "or prompt, chosen, rejected; or chosen, rejected"
)
REMEDY = "Name them with --columns, such as --columns prompt=NAME,chosen=NAME,rejected=NAME"


def fold(name: Any) -> str:
    """A column's name in lower case, without surrounding blanks, and with an underscore for inner
    blanks and hyphens."""
    return re.sub(r"[\s-]+", "_", str(name).strip().casefold())


def fold_path(path: str) -> str:
    """A dotted name with its column folded; names within values are read as they are written."""
    column, dot, within = path.partition(".")
    return f"{fold(column)}{dot}{within}"


def leads(row: Mapping[str, Any], path: str) -> bool:
    """Whether a dotted name leads to a value, which may be empty."""
    if path in row:
        return True
    outer, dot, last = path.rpartition(".")
    value = value_at(row, outer) if dot else None
    if isinstance(value, list):
        return last.isdigit() and int(last) < len(value)
    return isinstance(value, Mapping) and last in value


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """The value that a dotted name leads to, or None."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def names(columns: Iterable[Any]) -> str:
    """The first 12 columns, and how many more there are, as text that any terminal can print."""
    quoted = [ascii(name) for name in columns]
    more = f" and {len(quoted) - 12} more" if len(quoted) > 12 else ""
    return (", ".join(quoted[:12]) or "none") + more


def find_forms(paths: set[str], renamed: Iterable[str] = ()) -> list[Form]:
    """The forms that columns (and nested values) of those names can hold, the best first.

    Forms that tell the choice come before those whose column of choices is absent. ``renamed`` are
    columns that stand for others of ``paths``; they show the form of choices, too.
    """
    choices = paths.union(renamed)
    found = [f for f in FORMS if {f.first, f.second} <= paths]
    found = [f for f in found if not f.one_hot or set(f.one_hot) <= paths]
    found = [f for f in found if not f.ratings or paths & set(f.ratings)]
    return sorted(found, key=lambda f: not (f.decides or f.one_hot or choices & set(f.choice)))


def is_asked(columns: set[str]) -> bool:
    """Whether these are the columns of ASKED."""
    needed = {*ASKED_COLUMNS, "choice"}
    return needed <= columns <= needed.union(MESSAGE_COLUMNS, LABEL_STUDIO)


def no_form(columns: Iterable[str], where: str) -> DataError:
    """The error that says why rows of these columns hold no pairs, and what helps."""
    found = list(columns)
    folded = {fold(name) for name in found}
    for needed, what in UNPAIRED:
        if folded >= set(needed):
            return DataError(
                f"{where} cannot hold pairs: its columns are {names(found)}, {what}. "
                "Put two responses to one prompt into each row, as chosen and rejected."
            )
    return DataError(
        f"{where} cannot hold pairs: its columns are {names(found)}; looked for: {ACCEPTED}. "
        f"{REMEDY}."
    )


# Choices


def folded_choice(value: Any) -> str | None:
    """A choice as text, with ``2.0`` as ``2``; None if there is none. Of the answers of several
    annotators (as Argilla keeps them) it is the most frequent one, or ``tie`` if two are."""
    if _is_votes(value):
        votes = Counter(filter(None, map(folded_choice, _submitted(value)))).most_common(2)
        even = len(votes) > 1 and votes[0][1] == votes[1][1]
        return None if not votes else "tie" if even else votes[0][0]
    if value is None or value != value:
        return None
    text = str(value).strip().casefold()
    return re.sub(r"\A(-?\d+)\.0+\Z", r"\1", text) or None


def _is_votes(value: Any) -> bool:
    """Whether the value is a list or table of annotators' answers, which may be empty."""
    if isinstance(value, dict):
        return not value or isinstance(value.get("value"), list)
    return isinstance(value, list) and all(isinstance(v, dict) and "value" in v for v in value)


def _submitted(value: Any) -> list[Any]:
    """The answers that annotators submitted, from rows with ``value`` and ``status`` or from a dict
    of such columns. A ranking (``value`` and ``rank``) counts as its first response."""
    if isinstance(value, dict) and isinstance(value.get("value"), list) and "rank" not in value:
        columns = [column if isinstance(column, list) else [] for column in value.values()]
        value = [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=False)]
    rows = value if isinstance(value, list) else []
    answers = [
        row.get("value")
        for row in rows
        if isinstance(row, dict) and row.get("status", "submitted") == "submitted"
    ]
    return [_first_ranked(one) if isinstance(one, dict | list) else one for one in answers]


def _first_ranked(ranking: Any) -> Any:
    if isinstance(ranking, dict):
        names, ranks = ranking.get("value"), ranking.get("rank")
        if not isinstance(names, list) or not isinstance(ranks, list):
            return None
        ranking = [{"value": n, "rank": r} for n, r in zip(names, ranks, strict=False)]
    ranked = [one for one in ranking if isinstance(one, dict) and one.get("rank") == 1]
    firsts = [fold(one.get("value")) for one in ranked]
    return firsts[0] if len(firsts) == 1 else "tie" if firsts else None


@dataclass(frozen=True)
class Coding:
    """What a file's choice column holds for the first response and for the second one."""

    first: str
    second: str
    signed: bool = False

    def __str__(self) -> str:
        return f"{self.first} = first response, {self.second} = second response"

    def choice(self, value: str) -> int | None:
        """1 or 2, 0 for a tie, None for a value that is none of these."""
        if value in TIES:
            return 0
        if self.signed:
            try:
                strength = float(value)
            except ValueError:
                return None
            return 0 if strength == 0 else 1 if strength < 0 else 2 if strength > 0 else None
        return 1 if value == self.first else 2 if value == self.second else None


def find_coding(
    values: set[str],
    form: Form,
    column: str,
    where: str,
    choice_values: tuple[str, str] | None = None,
) -> Coding:
    """How the choices of a file are written, from all values that its column holds.

    ``choice_values`` decide, if given, then the form's own coding. Numbers of which any is negative
    are signed, unless known words stand beside them: a -1 among these is no choice. Else the coding
    is the known pair of values of which both occur or, if there is none, the pair of which
    one occurs and names its response: by word or letter, or by the number of the response's
    column. Numbers above 3, or with a fraction, beside the numbers of a pair are those of a scale.
    Raises DataError if no pair or several remain.
    """
    if choice_values is not None:
        first, second = (folded_choice(value) or "" for value in choice_values)
        return Coding(first, second)
    if form.coding is not None:
        return Coding(*form.coding)
    ends = tuple(re.split(r"[_.]|(?<=\D)(?=\d)", path)[-1] for path in (form.first, form.second))
    named = [(form.first, form.second), (ends[0], ends[1]), ("a", "b"), ("model_a", "model_b"),
             ("left", "right"), ("first", "second"), ("chosen_first", "chosen_second"),
             ("response_1", "response_2"), ("response_a", "response_b")]  # fmt: skip
    pairs = dict.fromkeys([*named, *NUMBERS])
    numbers = {v for v in values if re.fullmatch(r"-?\d+(\.\d+)?", v)}
    words = {word for pair in pairs for word in pair} & values - numbers
    if column in SIGNED or (min(map(float, numbers), default=0) < 0 and not words):
        return Coding("below 0", "above 0", signed=True)
    both = [pair for pair in pairs if set(pair) <= values]
    one = [pair for pair in dict.fromkeys(named) if set(pair) & values and "0" not in values]
    # A 3 alone may be a tie.
    is_scale = any(float(number) > 3 or float(number) % 1 for number in numbers)
    fitting = [pair for pair in both or one if not (is_scale and pair in NUMBERS)]
    if len(fitting) == 1:
        return Coding(*fitting[0])
    seen = ", ".join(ascii(value)[:20] for value in sorted(values)[:6])
    raise DataError(
        f"{where}: it cannot be told which response the values of {column!a} mean ({seen}). "
        "Say what stands for the first and for the second response with --choice-values, such as "
        "--choice-values A,B."
    )
