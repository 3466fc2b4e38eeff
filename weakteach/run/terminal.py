"""How commands speak to a terminal: plain text, one sentence for an error, progress, exit codes."""

import inspect
import io
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, get_args, get_origin

import cyclopts
from cyclopts.help import DefaultFormatter, HelpPanel, InlineText
from rich.console import Console, ConsoleOptions
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from weakteach import __version__
from weakteach.artifacts.errors import StepError, UserError
from weakteach.artifacts.step import Progress as Told
from weakteach.run.progress import WAITS

# By the type of a list option's items: what an error says that an item must be.
KINDS: dict[type, str] = {
    int: "a whole number; write them such as 0,1,2",
    float: "a number; write them such as 0.1,0.4",
    Fraction: "a fraction; write them such as 1/16,1/2",
}
EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 3, 130, 143


def terminal(stderr: bool = False) -> Console:
    """A console that prints texts unchanged: nothing in the name of a file or a model, or in any
    other text, is taken as markup, as an emoji or as something to color."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def new_app(name: str, text: str) -> cyclopts.App:
    """A command line whose options come from annotated parameters and documented dataclasses.

    Lists are written with commas (``--seeds 0,1``) or by repeating the option. The help shows no
    default that is False, 0, empty or None.
    """
    return cyclopts.App(
        name=name,
        help=text,
        help_format="plaintext",
        help_formatter=_Help(),
        version=__version__,
        version_flags=["--version"],
        default_parameter=cyclopts.Parameter(
            converter=_convert,
            negative="",
            negative_iterable="",
            show_default=lambda value: value or None,
        ),
    )


def script(command: Callable[..., int | None], text: str | None = None) -> cyclopts.App:
    """The command line of a script that consists of one command. Its help is ``text`` or, without
    it, the command's docstring."""
    app = new_app(Path(sys.argv[0]).name, text or inspect.getdoc(command) or "")
    app.default(command)
    return app


class _Help(DefaultFormatter):
    """Help that joins the lines of a docstring into one."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        for entry in panel.entries:
            if isinstance(entry.description, InlineText):
                text = str(entry.description.primary_renderable)
                entry.description.primary_renderable = Text(" ".join(text.split()))
        super().__call__(console, options, panel)


def _convert(kind: Any, tokens: Sequence[cyclopts.Token]) -> Any:
    """Convert the words given for an option to its value. Lists are split at commas, and an item
    that is given twice is kept once. Raises UserError for an item of the wrong type."""
    if get_origin(kind) is not tuple:
        return cyclopts.convert(kind, tokens)
    of = get_args(kind)[0]
    found: dict[Any, None] = {}
    for token in (given.evolve(value=item) for given in tokens for item in _items(given.value)):
        try:
            (value,) = cyclopts.convert(kind, [token])
        except ZeroDivisionError:
            value = None
        except cyclopts.CoercionError:
            if of not in KINDS:  # a choice: the error lists the valid ones
                raise
            value = None
        if value is None:
            raise UserError(f"{token.keyword}: {token.value} is not {KINDS[of]}")
        found[value] = None
    return tuple(found)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def launch(app: cyclopts.App, words: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit. Without ``words`` it is that of this process."""
    sys.exit(run(app, sys.argv[1:] if words is None else words))


def run(app: cyclopts.App, words: Sequence[str]) -> int:
    """Run a command line and return its exit code.

    An error that a user can mend becomes one sentence on stderr; with ``--verbose`` it is raised.
    Such an error is a UserError, or an OSError from wherever a disk or a bucket is accessed.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an ASCII terminal cannot print every text
            stream.reconfigure(errors="backslashreplace")
    verbose = False
    with _sigterm_as_ctrl_c() as terminated:
        try:
            command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
            verbose = bool(bound.arguments.get("verbose"))
            code = int(command(*bound.args, **bound.kwargs) or 0)
        except cyclopts.CycloptsError as error:
            code = _say(error, EXIT_USAGE)
        except (UserError, OSError) as error:
            if verbose:
                raise
            failed = isinstance(error, StepError | OSError)
            code = _say(error, EXIT_FAILED if failed else EXIT_USAGE)
        except KeyboardInterrupt:
            terminal(stderr=True).print("Interrupted. The same command goes on from here.")
            code = EXIT_INTERRUPTED
    return EXIT_TERMINATED if terminated and code == EXIT_INTERRUPTED else code


def _say(error: Exception, code: int) -> int:
    said = UserError(f"Error: {error}")  # which joins its lines into one
    terminal(stderr=True).print(str(said), soft_wrap=True)
    return code


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[list[int]]:
    """Inside this context, a SIGTERM does what a Ctrl-C does, so that a command can say how to go
    on. Yields a list that holds the signal's number once one has come."""
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        # A shell without job control has what it starts in the background ignore Ctrl-C.
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def following(console: Console, text: str) -> Iterator[Told]:
    """Show a line with the time that a step takes. Once the step tells them, the line also shows
    rows, rates and the time left, or that the step waits for a device.

    Rates are those of this run: rows that an earlier run left done do not count.
    """
    columns = (
        SpinnerColumn("line" if console.options.ascii_only else "dots"),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(text, total=None, rate="")
        first: tuple[int, float] | None = None

        def show(done: int, total: int, tokens: int = 0, waits: bool = False) -> None:
            nonlocal first
            bar.update(task, description=f"{text}, {WAITS}" if waits else text, refresh=waits)
            if waits or not total:
                return
            now = time.monotonic()
            first = first or (done, now)
            seconds = now - first[1]
            rate = f"{done:,}/{total:,}"
            if seconds:
                rate += f", {(done - first[0]) / seconds:,.1f}/s"
            if seconds and tokens:
                rate += f", {tokens / seconds:,.0f} tokens/s"
            bar.update(task, completed=done, total=total, rate=rate)

        yield show
        bar.update(task, total=1, completed=1)
