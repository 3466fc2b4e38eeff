"""Errors that a user can mend."""


class UserError(Exception):
    """The message is one sentence that names what is wrong and the remedy; a command prints it
    without a traceback."""


class StorageError(UserError):
    """The storage cannot be read or written."""


class StepError(UserError):
    """A step could not be computed."""


class LostError(StepError):
    """What was computing a step is gone, a process or a node, which says nothing against the step:
    computed again, it goes on from what its scratch folder holds."""
