"""The version of the package and the top of the changelog agree."""

from __future__ import annotations

import pytest

import nequip_decorr
from tests.docs.blocks import ROOT
from tests.support.release import agree, released_version


def test_the_version_is_that_of_the_changelog() -> None:
    section = released_version((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert agree(nequip_decorr.__version__, section)


@pytest.mark.parametrize(
    ("version", "section", "expected"),
    [
        ("0.1.0.dev0", "Unreleased", True),
        ("0.1.0", "Unreleased", False),
        ("0.1.0", "0.1.0", True),
        ("0.1.1", "0.1.0", False),
        ("0.1.0.dev0", "0.1.0", False),
    ],
)
def test_a_release_and_a_development_version_differ(
    version: str, section: str, expected: bool
) -> None:
    assert agree(version, section) == expected


def test_the_top_section_counts() -> None:
    text = "# Changelog\n\nWords.\n\n## [0.2.0] - 2027-01-01\n\n### Added\n\n## 0.1.0\n"
    assert released_version(text) == "0.2.0"
