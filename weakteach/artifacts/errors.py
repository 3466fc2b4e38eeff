"""Errors that a user can mend."""


def printable(text: str) -> str:
    """Without control characters: what a damaged file or a stranger's store holds is shown."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class UserError(Exception):
    """The message is one sentence that names what is wrong and the remedy; a command prints it
    without a traceback. Lines of a library's message that it quotes are joined, and what is not
    printable, which may come out of a damaged file, is replaced."""

    def __init__(self, message: str) -> None:
        lines = (line.strip() for line in message.splitlines())
        super().__init__(printable(" ".join(line for line in lines if line)))


class StorageError(UserError):
    """The storage cannot be read or written."""


class StepError(UserError):
    """A step could not be computed."""


def passes(error: BaseException) -> bool:
    """Whether an error is of what a step runs on: a storage that does not answer now, a device that
    failed. Tried again elsewhere or later, the same work may succeed. What is not there, or is
    forbidden, stays so."""
    lasting = FileNotFoundError | FileExistsError | PermissionError | NotADirectoryError
    named = {kind.__name__ for kind in type(error).__mro__}  # torch is not known here
    return "AcceleratorError" in named or (
        isinstance(error, OSError | LostError) and not isinstance(error, lasting)
    )


class LostError(StepError):
    """What was computing a step is gone, a process or a node, which says nothing against the step:
    computed again, it goes on from what its scratch folder holds."""
