"""The ways in which rows are processed."""

from weakteach.models.resources import Resources


class Apart(Resources):
    """As on a GPU: what prepares asks for other resources than what computes, so that Ray Data
    cannot run both in one process."""

    def preparing_options(self):
        return {"num_cpus": 0.5}


TASKS, ACTORS = Resources(), Resources(label_actors=2)
STAGES = Apart(label_actors=2)
