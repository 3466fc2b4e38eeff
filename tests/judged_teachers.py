"""Teachers with a known accuracy and calibration, as the facts of a verdict read them."""

import numpy as np
from scipy import special

from weakteach.evaluation.judged import Judged
from weakteach.evaluation.teaching import TeacherFacts, teacher_facts

# Standard deviation of a calibrated teacher's margins for its accuracy.
SPREADS = {0.5: 1e-6, 0.55: 0.26, 0.6: 0.52, 0.64: 0.77, 0.7: 1.25}


def judged(
    pairs: int = 2000, accuracy: float = 0.7, repeats: int = 2, folds: int = 5, seed: int = 0
) -> Judged:
    """A teacher of about that accuracy whose margins are four times those of a calibrated one."""
    random = np.random.default_rng(seed)
    human = random.integers(1, 3, pairs)
    size = np.abs(random.normal(0, SPREADS[accuracy], (repeats, pairs)))
    right = random.random((repeats, pairs)) < special.expit(size)
    sign = np.where(right == (human == 1), 1, -1)
    fold = np.stack([random.permutation(pairs) % folds for _ in range(repeats)])
    return Judged(
        pair_id=np.array([f"{n:05d}" for n in range(pairs)], dtype=object),
        source=np.array(["a", "b"] * (pairs // 2), dtype=object),
        group=np.arange(pairs),
        human=human,
        longer=np.where(np.arange(pairs) % 4 == 0, 0, human),  # humans always choose the longer
        margin=sign * 4 * size,
        fold=fold,
        folds=folds,
    )


def facts(teacher: Judged, **changes) -> TeacherFacts:
    given = {
        "teacher": "opt-45k", "judged": teacher, "training_pairs": 240, "wanted": 0.75,
        "smaller": {}, "rivals": [], "transfer": [],
    }  # fmt: skip
    return teacher_facts(**{**given, **changes})
