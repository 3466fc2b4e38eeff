"""Errors that a user can mend."""


class UserError(Exception):
    """The message is one sentence that names what is wrong and the remedy; a command prints it
    without a traceback."""


class StorageError(UserError):
    """The storage cannot be read or written."""


class StepError(UserError):
    """A step could not be computed."""
