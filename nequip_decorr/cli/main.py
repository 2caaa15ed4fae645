"""The ``nequip-decorr`` command: parse, call, write; the work is elsewhere."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from nequip_decorr import __version__
from nequip_decorr.errors import UserError

#: subcommand -> one-line help; module ``nequip_decorr.cli.<name>`` has
#: ``add_arguments(parser)`` and ``run(args) -> int`` and is imported when used.
COMMANDS = {
    "inspect": "correlation and effective rank per layer of a saved model",
    "md": "run MD replicas with a model and report how stable they are",
    "judge": "apply the same failure criteria to LAMMPS, VASP or ase trajectories",
    "compare": "compare the MD stability of two or more models",
    "study": "train variants of a config with several seeds and compare them",
}
DESCRIPTION = "Feature correlation and MD stability of machine-learned force fields."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 130 after Ctrl-C."""
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        print("nequip-decorr: interrupted", file=sys.stderr)
        return 130


def _main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="nequip-decorr", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    chosen = next((a for a in argv if not a.startswith("-")), None)
    for name, help_text in COMMANDS.items():
        description = f"{help_text[0].upper()}{help_text[1:]}."
        sub = subparsers.add_parser(name, help=help_text, description=description)
        if name == chosen:
            importlib.import_module(f"{__package__}.{name}").add_arguments(sub)
    args = parser.parse_args(argv)
    command = importlib.import_module(f"{__package__}.{args.command}")
    try:
        return int(command.run(args))
    except UserError as error:
        message = str(error)
    except OSError as error:
        # a full disk, a folder without permission; without a number, it is a bug
        if error.errno is None:
            raise
        where = "" if error.filename is None else f": {error.filename}"
        message = f"{error.strerror}{where}"
    print(f"nequip-decorr {args.command}: {message}", file=sys.stderr)
    return 2
