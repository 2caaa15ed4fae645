"""Result files as they are named on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nequip_decorr.errors import UserError
from nequip_decorr.md.results import RESULT_NAME


def result_file(path: Path) -> Path:
    """The result file at a path, or in the run folder at it.

    Raises:
        UserError: when there is none.
    """
    candidate = path / RESULT_NAME if path.is_dir() else path
    if not candidate.is_file():
        raise UserError(
            f"expected a result file of `nequip-decorr md` or its folder, got {path}; "
            "check the path"
        )
    return candidate


def labels(paths: Sequence[Path]) -> list[str]:
    """Short names, one for each file: its folder's or its own, longer if they clash.

    Of ``none_1/md/result.json`` and ``decorr_1/md/result.json``: none_1 and decorr_1.
    """
    whole = [path.resolve() for path in paths]
    if len(set(whole)) < len(whole):
        raise UserError(
            "expected different result files, got the same file twice; name each once"
        )
    parts = [
        (path.parent if path.name == RESULT_NAME else path.with_suffix("")).parts
        for path in whole
    ]
    for length in range(1, max(map(len, parts)) + 1):
        found = [part[-length:] for part in parts]
        if len(set(found)) == len(found):
            break
    while length > 1 and len({part[-1] for part in found}) == 1:
        found = [part[:-1] for part in found]
        length -= 1
    return ["/".join(part) for part in found]
