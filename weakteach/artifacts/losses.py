"""Going on with a step after the process or node that was computing it was lost."""

import logging
from collections.abc import Callable
from typing import TypeVar

from weakteach.artifacts.errors import LostError

LOGGER = logging.getLogger(__name__)
# A step with which this many processes or nodes are lost in a row is itself the cause.
LOSSES_OF_A_STEP = 10

T = TypeVar("T")


def through_losses(compute: Callable[[], T]) -> T:
    """Call ``compute`` and return its result. Whenever it raises LostError, because a worker or a
    node died, call it again, up to LOSSES_OF_A_STEP times in all. Other errors propagate."""
    for number in range(1, LOSSES_OF_A_STEP):
        try:
            return compute()
        except LostError as error:
            LOGGER.warning("Loss %d: %s", number, error)
    return compute()
