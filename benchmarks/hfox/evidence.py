"""``make evidence``: does decorrelation make MD more stable out of distribution?

Runs the studies of a grid, in ``studies/GRID``, with ``nequip-decorr study``; then
writes their reports and RESULTS.md. Studies that are complete, as those whose records
are in the repository, train nothing. If interrupted, rerun the same command.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path

from nequip_decorr.md.files import write_atomic
from nequip_decorr.study.config import read_study
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.report.html import write_report
from nequip_decorr.study.report.result import findings

from ..common import BIN, ROOT, enter, environment
from ..pages import rewrite, write_figure
from .data import DATA, require_intact
from .pages import STUDIES, marked, results

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

#: Pages with tables of the committed studies.
PAGES = (ROOT / "README.md", ROOT / "docs" / "evidence.md")


def is_complete(path: Path, folder: StudyFolder) -> bool:
    """Whether a study asks for nothing that its folder does not have.

    Planning it again would refuse records from before a preset got another default.
    """
    if not (folder.path / "plan.json").exists():
        return False
    study, found = read_study(path), findings(folder)
    known = found.registered.identity["variants"]
    overrides = {name: tuple(each["overrides"]) for name, each in known.items()}
    same = overrides == study.variants and study.seeds == found.registered.seeds
    return same and found.complete


def run(path: Path, folder: StudyFolder) -> bool:
    """Run a study, or report on one that is complete; whether all went well."""
    print(f"{path.stem}:", flush=True)
    if is_complete(path, folder):
        print(f"complete; report: {write_report(folder)[0]}", flush=True)
        return True
    command = [BIN / "nequip-decorr", "study", path, "--out", folder.path]
    done = subprocess.run(command, cwd=ROOT, env=environment(), check=False)
    return done.returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", choices=("cpu", "gpu", "small"), default="cpu")
    parser.add_argument("--studies", type=Path, help="folder of study files")
    parser.add_argument("--out", type=Path, help="folder for results")
    args = parser.parse_args(arguments)
    require_intact(DATA)
    paths = sorted(
        (args.studies or HERE / "studies" / args.grid).glob("*.yaml"),
        key=lambda path: [*STUDIES, path.stem].index(path.stem),
    )
    # studies of grids share names, and those of the CPU grid are in the repository
    out = args.out or ROOT / "outputs" / f"evidence-{args.grid}"
    if args.out is None and args.grid == "cpu":
        out = RESULTS
    folders = {path: StudyFolder(out / path.stem) for path in paths}
    sound = [run(path, folder) for path, folder in folders.items()]
    studies = {
        path.stem: findings(folder)
        for path, folder in folders.items()
        if (folder.path / "plan.json").exists()
    }
    if not studies:  # refused, for a reason that was printed
        return 1
    write_atomic(out / "RESULTS.md", results(studies))
    print(f"written: {out / 'RESULTS.md'}")
    if out == RESULTS:
        write_figure(studies["confirmed"], RESULTS / "confirmed_survival.png")
        for page in PAGES:
            rewrite(page, marked(studies))
    return 0 if all(sound) else 1


if __name__ == "__main__":
    enter(main)
