"""The tables of the evidence are those of the records."""

from __future__ import annotations

from docs.evidence_tables import CONDITIONS, DOCS, RECORDS, tables, updated


def test_the_page_has_the_tables_of_the_records() -> None:
    page = (DOCS / "evidence.md").read_text(encoding="utf-8")
    assert updated(page, RECORDS) == page


def test_no_table_pools_conditions() -> None:
    for text in tables(RECORDS).values():
        heading = text.splitlines()[0]
        assert all(f"| {name} |" in heading for name in CONDITIONS.values())
        assert "all" not in heading
