"""Going on after what computed a step was lost."""

import logging
from collections.abc import Callable
from typing import TypeVar

from weakteach.artifacts.errors import LostError

LOGGER = logging.getLogger(__name__)
# A step that loses so often what computes it, one time after the other, is the cause itself.
LOSSES_OF_A_STEP = 10

T = TypeVar("T")


def through_losses(compute: Callable[[], T]) -> T:
    """Call ``compute`` and return its result, and call it again when it raises LostError, because
    a worker or a node died. It is called at most LOSSES_OF_A_STEP times. Other errors propagate."""
    for number in range(1, LOSSES_OF_A_STEP):
        try:
            return compute()
        except LostError as error:
            LOGGER.warning("Loss %d: %s", number, error)
    return compute()
