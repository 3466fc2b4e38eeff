"""``python -m weakteach``."""

from weakteach.cli import main

main()
