"""What ``md`` and ``judge`` do with a result: fidelity, summary, report."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from nequip_decorr.errors import UserError
from nequip_decorr.md.report.html import write_report
from nequip_decorr.md.report.terminal import print_summary
from nequip_decorr.md.results import RESULT_NAME, RunResult
from nequip_decorr.md.statistics.fidelity import add_fidelity
from nequip_decorr.printing import say


def finish(
    result: RunResult,
    result_path: Path,
    reference: Path | None,
    console: Console,
    *,
    command: str,
) -> None:
    """Measure the fidelity of a complete run, and write its report.

    Without a reference, an earlier measurement is kept.
    """
    own = result_path.name == RESULT_NAME
    page = result_path.with_name("report.html" if own else f"{result_path.stem}.html")
    if reference is not None or result.fidelity is None:
        result = add_fidelity(result, result_path, reference)
    print_summary(result, result_path, console)
    try:
        write_report(result, result_path.parent, page)
    except UserError as error:
        print(f"nequip-decorr {command}: no report: {error}", file=sys.stderr)
    else:
        say(console, f"report: {page}")
