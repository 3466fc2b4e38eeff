"""Errors that a user can mend, and whether those of others pass."""

import errno

# Errors of a storage that stay: what is not there, or forbidden, or has no room.
LASTING = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError)
LASTING_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
OUT_OF_MEMORY = "OutOfMemoryError"  # of torch, on a device


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
    failed. Tried again elsewhere or later, the same work may succeed. A full disk stays full, and a
    device that does not hold a batch never will."""
    if isinstance(error, StorageError):
        return error.__cause__ is not None and passes(error.__cause__)
    if isinstance(error, OSError):
        return not isinstance(error, LASTING) and error.errno not in LASTING_NUMBERS
    return isinstance(error, LostError) or "AcceleratorError" in _kinds(error)


def is_of_rows(error: BaseException) -> bool:
    """Whether an error may be of the rows at work. What passes is not, nor is any other error of
    the storage or of memory: other rows would meet it, too."""
    of_machine = isinstance(error, OSError | StorageError | MemoryError)
    return not (of_machine or passes(error) or OUT_OF_MEMORY in _kinds(error))


def in_words(error: BaseException) -> str:
    """What an error of work on rows says, with the remedy where a device has run out of memory."""
    said = str(error) or type(error).__name__
    if OUT_OF_MEMORY not in _kinds(error):
        return said
    return (
        "the device has no memory for a batch: lower --batch-tokens, or take a device of more "
        f"memory ({said.splitlines()[0]})"
    )


def _kinds(error: BaseException) -> set[str]:
    """The names of its classes: torch, whose some are, is not known here."""
    return {kind.__name__ for kind in type(error).__mro__}


class LostError(StepError):
    """The process or node that was computing a step died. The step is not to blame: when it is
    computed again, it goes on from what its scratch folder holds."""
