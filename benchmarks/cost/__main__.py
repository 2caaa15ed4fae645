"""``python -m benchmarks.cost training``, ``md MODEL`` and ``judge``."""

from __future__ import annotations

import argparse

from ..common import enter
from . import judge, md, training


def main() -> None:
    """Measure one of them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost", description="What the extension costs."
    )
    which = parser.add_subparsers(dest="what", required=True)
    for module in (training, md, judge):
        about = (module.__doc__ or "").splitlines()[0]
        name = module.__name__.rpartition(".")[2]
        command = which.add_parser(name, help=about, description=about)
        module.add_arguments(command)
        command.set_defaults(measure=module.measure)
    args = parser.parse_args()
    args.measure(args)


if __name__ == "__main__":
    enter(main)
