"""Training until it stops improving on held-out pairs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

HELD_OUT_LOSS = "held_out_loss"


class StopWhenWorse(TrainerCallback):
    """Ends the training when the ``loss`` on held-out pairs, taken once per ``every`` updates, is
    not below the one before.

    The losses are kept in the trainer's history alone. Checkpoints hold it, so a training that goes
    on from one decides as if it had never stopped. The loss must be the same number on all workers.
    """

    def __init__(self, loss: Callable[[], float], every: int) -> None:
        self._loss, self._every = loss, every

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step % self._every:
            return
        before, now = held_out_losses(state.log_history), self._loss()
        state.log_history.append({HELD_OUT_LOSS: now, "step": state.global_step})
        if before and now >= before[max(before)]:
            control.should_training_stop = True


def held_out_losses(history: Iterable[Mapping[str, float]]) -> dict[int, float]:
    """The losses on held-out pairs in a trainer's history, by the number of updates made."""
    return {int(row["step"]): row[HELD_OUT_LOSS] for row in history if HELD_OUT_LOSS in row}


def best_updates(losses: Mapping[int, float]) -> int:
    """The number of updates after which the loss was least; the smallest number, if there are
    several."""
    return min(losses, key=lambda updates: (losses[updates], updates))
