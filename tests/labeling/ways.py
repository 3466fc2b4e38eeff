"""The ways in which rows are processed."""

import sys

import ray.cloudpickle

from weakteach.models.resources import Resources

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Apart(Resources):
    """As on a GPU: what prepares asks for other resources than what computes, and is another
    process."""

    preparing_cpus = 0.5


TASKS, ACTORS = Resources(), Resources(label_actors=2)
STAGES = Apart(label_actors=2)
