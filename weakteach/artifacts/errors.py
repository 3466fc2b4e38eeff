"""Errors that a user can mend, and whether an error may pass or is about rows."""

import errno

# Storage errors that another try does not mend: a file is missing or in the way, access is
# forbidden, or there is no room.
LASTING = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError)
LASTING_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
OUT_OF_MEMORY = "OutOfMemoryError"  # torch raises it when a device runs out of memory


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
    """Whether an error is due to what a step runs on, such as a storage that does not answer or a
    device that failed, so that the same work may succeed elsewhere or later. A full disk does not
    count, since it stays full, nor does a device that has too little memory for a batch."""
    if isinstance(error, StorageError):
        return error.__cause__ is not None and passes(error.__cause__)
    if isinstance(error, OSError):
        return not isinstance(error, LASTING) and error.errno not in LASTING_NUMBERS
    return isinstance(error, LostError) or "AcceleratorError" in _kinds(error)


def is_of_rows(error: BaseException) -> bool:
    """Whether an error may be about the rows at work. One that may pass (see ``passes``) is not,
    nor is any other error of the storage or of memory: it would occur with other rows, too."""
    of_machine = isinstance(error, OSError | StorageError | MemoryError)
    return not (of_machine or passes(error) or OUT_OF_MEMORY in _kinds(error))


def in_words(error: BaseException) -> str:
    """The message of an error that work on rows raised. If a device has run out of memory, it also
    names the remedy."""
    said = str(error) or type(error).__name__
    if OUT_OF_MEMORY not in _kinds(error):
        return said
    return (
        "the device has no memory for a batch: lower --batch-tokens, or take a device of more "
        f"memory ({said.splitlines()[0]})"
    )


def _kinds(error: BaseException) -> set[str]:
    """The names of the error's class and of all its base classes: names, because some of these
    classes are torch's, which is not imported here."""
    return {kind.__name__ for kind in type(error).__mro__}


class LostError(StepError):
    """The process or node that was computing a step died. The step is not to blame: when it is
    computed again, it goes on from what its scratch folder holds."""
