"""What the repository shows of its benchmarks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.hfox import evidence
from benchmarks.hfox.pages import STUDIES, marked, results
from benchmarks.hfox.tables import Studies
from benchmarks.pages import records_checksum, updated
from nequip_decorr.study.compose import Composer
from nequip_decorr.study.config import read_study
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.report.result import findings

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "hfox" / "results"
STUDY_FILES = sorted((ROOT / "benchmarks/hfox/studies").glob("*/*.yaml"))
COMMITTED = [path for path in STUDY_FILES if path.parent.name == "cpu"]


@pytest.fixture(scope="module")
def studies() -> Studies:
    names = [name for name in STUDIES if (RESULTS / name).is_dir()]
    return {name: findings(StudyFolder(RESULTS / name)) for name in names}


def test_the_committed_results_are_those_of_the_committed_records(
    studies: Studies,
) -> None:
    assert results(studies) == (RESULTS / "RESULTS.md").read_text()


@pytest.mark.parametrize("page", evidence.PAGES, ids=lambda page: page.name)
def test_pages_have_the_tables_of_the_records(page: Path, studies: Studies) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<!-- table " in text
    assert updated(text, marked(studies)) == text


def test_the_figure_is_that_of_the_records() -> None:
    with Image.open(RESULTS / "confirmed_survival.png") as image:
        assert image.text["Description"] == records_checksum(RESULTS / "confirmed")


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_studies_are_complete(path: Path) -> None:
    assert evidence.is_complete(path, StudyFolder(RESULTS / path.stem))


def test_every_committed_record_is_of_a_study() -> None:
    folders = {path.parent.name for path in RESULTS.glob("*/plan.json")}
    assert folders == {path.stem for path in COMMITTED}


@pytest.mark.parametrize(
    "path", STUDY_FILES, ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_studies_can_be_read(path: Path) -> None:
    study = read_study(path)
    assert study.baseline == "none"
    assert path.stem in STUDIES
    assert [s.name for s in study.md] == ["HfO1.56", "HfO1.12", "HfO2", "nve"]


def test_every_config_and_every_variant_composes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planning would take minutes; each is composed once."""
    monkeypatch.chdir(ROOT)
    studies = [read_study(path) for path in STUDY_FILES]
    configs = {study.config.resolve(): () for study in studies}
    variants = {each: s.config for s in studies for each in s.variants.values()}
    for config, overrides in [
        *configs.items(),
        *((config, overrides) for overrides, config in variants.items()),
    ]:
        assert Composer(config).compose(overrides).test_files[-1] == "hfo2_2400K"


@pytest.mark.parametrize(
    "page",
    sorted((ROOT / "benchmarks").rglob("*.md")),
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
