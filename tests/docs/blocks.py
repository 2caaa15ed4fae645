"""Fenced blocks of the README and the documentation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: language -> how its blocks may be tested, see CONTRIBUTING.md
KINDS = {
    "bash": {"", "norun"},
    "yaml": {"flag", "callback", "metric", "protocol", "study", "norun"},
    "python": {"run", "norun"},
}

_FENCE = re.compile(r"^```(\w+)(?:[ ]+([^\n]*))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block, where it stands, how it is tested, and the output shown after it."""

    page: str
    line: int
    language: str
    marker: str
    text: str
    shown: str = ""

    @property
    def kind(self) -> str:
        """The marker without its reason."""
        return self.marker.partition(":")[0].strip()

    @property
    def where(self) -> str:
        """For the name of a test."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """The README and all pages that are written by hand."""
    docs = ROOT / "docs"
    found = [*docs.glob("*.md"), *(docs / "api").glob("*.md")]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(found)]


def blocks_of(page: Path) -> list[Block]:
    """The blocks of one page in order."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _FENCE.finditer(text):
        language, marker, content = match.groups()
        if language == "text" and found:
            found[-1] = Block(**{**vars(found[-1]), "shown": content})
        if language in KINDS:
            line = text.count("\n", 0, match.start()) + 1
            name = str(page.relative_to(ROOT))
            found.append(Block(name, line, language, marker or "", content))
    return found


def all_blocks() -> list[Block]:
    """The blocks of all pages."""
    return [block for page in pages() for block in blocks_of(page)]
