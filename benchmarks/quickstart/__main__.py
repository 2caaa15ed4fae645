"""``python -m benchmarks.quickstart``."""

from .comparison import main

if __name__ == "__main__":
    main()
