"""The ``weakteach`` command, wired together."""

from typing import NoReturn

from weakteach.run.check import check
from weakteach.run.cleaning import gc
from weakteach.run.embedded import pretrain, world
from weakteach.run.inspection import plan, report, show
from weakteach.run.label import label
from weakteach.run.terminal import launch, new_app

app = new_app(
    "weakteach",
    "Can a weak language model teach a strong one? Studies run from the scripts in sweeps/.",
)
for command in (label, check, plan, report, show, gc, pretrain, world):
    app.command(command)


def main() -> NoReturn:
    launch(app)


if __name__ == "__main__":
    main()
