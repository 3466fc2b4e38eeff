"""Errors that a user can mend."""


def printable(text: str) -> str:
    """Replace characters that cannot be printed, such as control characters, since texts that are
    shown may come from a damaged file or from somebody else's store."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class UserError(Exception):
    """An error whose message is one sentence that names what is wrong and the remedy. Commands
    print the message without a traceback.

    If the message quotes several lines of a library, they are joined into one line. Characters that
    cannot be printed are replaced.
    """

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
    """The process or node that was computing a step died. The step is not to blame: when it is
    computed again, it goes on from what its scratch folder holds."""
