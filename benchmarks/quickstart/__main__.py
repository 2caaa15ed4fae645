"""``python -m benchmarks.quickstart``."""

from ..common import enter
from .comparison import main

if __name__ == "__main__":
    enter(main)
