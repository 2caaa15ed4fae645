"""The protocol that a command line asks for, as ``md`` and ``judge`` read it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.md.presets import preset, protocol_and_keys
from nequip_decorr.md.protocol import Protocol


def base_protocol(args: argparse.Namespace) -> tuple[Protocol, frozenset[str]]:
    """The protocol of ``--protocol`` or ``--preset``, before any other flag.

    Returns:
        The protocol, and the keys that are in the file of ``--protocol``.

    Raises:
        UserError: for both, and for a file that is no protocol.
    """
    if args.preset and args.protocol:
        raise UserError(
            "expected --preset or --protocol, got both; "
            "write `preset: NAME` into the file instead"
        )
    if args.protocol:
        return protocol_and_keys(args.protocol)
    return preset(args.preset or "solid"), frozenset()


def flagged(args: argparse.Namespace, flags: Mapping[str, str]) -> dict[str, Any]:
    """Fields of the protocol that flags set; ``flags`` maps a flag to its field."""
    return {
        name: getattr(args, flag)
        for flag, name in flags.items()
        if getattr(args, flag) is not None
    }
