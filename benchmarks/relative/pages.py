"""The table of docs/choose.md, from the records of these studies."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.report.result import Findings, findings

from ..common import ROOT, enter
from ..pages import head, line, rewrite

RESULTS = Path(__file__).resolve().parent / "results"

#: The page with the table.
PAGE = ROOT / "docs" / "choose.md"

#: Each study, in the order of the table.
SYSTEMS = {
    "hfo2": "HfO2, Allegro",
    "acac": "acetylacetone, Allegro",
    "3bpa": "3BPA, Allegro",
    "gnn": "HfO2, NequIP GNN (radial weights)",
    "gnn_wide": "the same, radial network 128 wide",
    "gnn_bessels": "the same, 32 wide, 16 Bessel functions",
}


def read_studies(folder: Path = RESULTS) -> dict[str, Findings]:
    """The studies by system."""
    return {name: findings(StudyFolder(folder / name)) for name in SYSTEMS}


def table(studies: Mapping[str, Findings]) -> str:
    """Mean |rho| of each model: a row for each system, a column each coefficient."""
    variants = next(iter(studies.values())).variants
    names = ["without the term", *(f"`coeff` {name}" for name in variants[1:])]
    lines = head(["", *names])
    for name, found in studies.items():
        cells = [correlations(found, variant) for variant in variants]
        lines.append(line([SYSTEMS[name], *cells]))
    return "\n".join(lines)


def correlations(found: Findings, variant: str) -> str:
    """Mean |rho| of the models of a variant, one for each seed."""
    own = [model for model in found.models if model.variant == variant]
    return ", ".join(
        "failed" if model.correlation is None else f"{model.correlation:.2f}"
        for model in own
    )


def main() -> None:
    """Write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rewrite(PAGE, {"relative": table(read_studies())})
    print(f"written: {PAGE}")


if __name__ == "__main__":
    enter(main)
