"""``nequip-decorr md DIR --rejudge``: reads, rejudges and writes a result."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from nequip_decorr.cli.result_files import result_file
from nequip_decorr.errors import UserError
from nequip_decorr.md import results
from nequip_decorr.md.rejudge import rejudge
from nequip_decorr.printing import say

#: What may be given with ``--rejudge``.
OPTIONS = ("model", "rejudge", "criteria", "out", "reference")


def run_again(
    args: argparse.Namespace, defaults: argparse.Namespace, console: Console
) -> tuple[results.RunResult, Path]:
    """Rejudge a run, and write the new result beside the old one or to --out.

    Args:
        args: arguments of the command line.
        defaults: the arguments with nothing but a model given.
        console: console for printing what changed.

    Returns:
        The new result and its file.

    Raises:
        UserError: for other options, or as
            :func:`nequip_decorr.md.rejudge.rejudge`.
    """
    given = [
        f"--{name.replace('_', '-')}"
        for name, default in vars(defaults).items()
        if name not in OPTIONS and getattr(args, name) != default
    ]
    if given or not args.criteria:
        raise UserError(
            "--rejudge needs --criteria and takes no options that describe a run "
            f"(given: {', '.join(given) or 'neither'}); use e.g. `nequip-decorr "
            "md DIR --rejudge --criteria min_distance_ratio=0.7`"
        )
    limits = parse_limits(args.criteria)
    path = result_file(Path(args.model))
    before = results.load(path)
    after = rejudge(before, path, limits)
    out = _free(args.out, path, limits)
    after = replace(
        after,
        replicas=tuple(_moved(r, path.parent, out.parent) for r in after.replicas),
    )
    results.save(after, out)
    _print_changes(before, after, limits, console)
    return after, out


def parse_limits(texts: Sequence[str]) -> dict[str, float | None]:
    """``NAME=VALUE ...`` as limits; ``null`` switches a test off.

    Raises:
        UserError: for anything else.
    """
    limits: dict[str, float | None] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            limits[name] = None if value in ("null", "none") else float(value)
        except ValueError as error:
            raise UserError(
                f"expected NAME=NUMBER or NAME=null for --criteria, got {text!r}; "
                "write e.g. min_distance_ratio=0.7"
            ) from error
    return limits


def _free(folder: Path | None, run: Path, limits: dict[str, float | None]) -> Path:
    """Path of the new result, which never overwrites the result of a run."""
    if folder is None:
        names = ",".join(f"{k}={_shown(v)}" for k, v in sorted(limits.items()))
        return run.with_name(f"rejudged-{names}.json")
    path = folder / results.RESULT_NAME
    if path.exists() and "rejudged_from" not in results.load(path).machine:
        raise UserError(
            f"expected a folder without a run for --out, got {folder}; choose another"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create the folder {folder} for --out ({error.strerror}); choose "
            "another"
        ) from error
    return path


def _moved(replica: results.Replica, old: Path, new: Path) -> results.Replica:
    """A replica whose paths are relative to another folder."""

    def there(path: str | None) -> str | None:
        return (
            None if path is None else Path(os.path.relpath(old / path, new)).as_posix()
        )

    events: dict[str, Any] = {
        kind: replace(event, last_good_frame=there(event.last_good_frame))
        for kind in results.KINDS
        if (event := replica.event(kind))
    }
    return replace(replica, **events, trajectory=there(replica.trajectory))


def _print_changes(
    before: results.RunResult,
    after: results.RunResult,
    limits: dict[str, float | None],
    console: Console,
) -> None:
    for name, value in limits.items():
        was = before.protocol["criteria"].get(name)
        say(console, f"criteria.{name}: {_shown(value)} (was {_shown(was)} in the run)")
    for kind in results.KINDS:
        counts = [
            sum(r.event(kind) is not None for r in run.replicas)
            for run in (after, before)
        ]
        said = f"{counts[0]} of {len(after.replicas)} (was {counts[1]} in the run)"
        say(console, f"{kind}: {said}")


def _shown(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"
