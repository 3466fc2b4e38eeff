"""``python -m weakteach``."""

from weakteach.cli import main

if __name__ == "__main__":
    main()
