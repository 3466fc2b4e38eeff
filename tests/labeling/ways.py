"""The ways in which rows are processed."""

from weakteach.models.resources import Resources


class Apart(Resources):
    """As on a GPU: what prepares asks for other resources than what computes, and is another
    process."""

    preparing_cpus = 0.5


TASKS, ACTORS = Resources(), Resources(label_actors=2)
STAGES = Apart(label_actors=2)
