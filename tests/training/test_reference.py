"""The options page of the docs is what the code declares."""

import re
from pathlib import Path

from nequip_decorr.training.options import all_names
from nequip_decorr.training.reference import render

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_up_to_date():
    page = (DOCS / "options.md").read_text()
    assert page == render()  # made by python -m nequip_decorr.training.reference


def test_each_option_is_on_the_page():
    top, schedule, sample, penalty = render().split("\n## ")
    sections = {"schedule": schedule, "sample": sample, "penalty": penalty}
    for name in all_names():
        group, _, last = name.rpartition(".")
        if last != "kind" or group != "schedule":
            assert f"\n| `{last}` | " in sections.get(group, top), name


def test_tables_are_not_broken():
    for table in re.findall(r"(?:^\|.*\n)+", render(), re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
