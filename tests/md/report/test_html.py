from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from xml.etree import ElementTree

import ase.io
import jsonschema
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from nequip_decorr import plotting as figure
from nequip_decorr.errors import UserError
from nequip_decorr.md import Protocol, run_stability
from nequip_decorr.md.report.html import MAX_PICTURES, render_report, write_report
from nequip_decorr.md.results import Failure, load, save
from nequip_decorr.md.statistics.fidelity import add_fidelity
from nequip_decorr.md.statistics.survival import estimate_survival
from tests.support.synthetic import run

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Reads a page: text, attributes, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def images(self) -> list[str]:
        return [value for name, value in self.attributes if name == "src"]


def page_of(result, folder):
    return Page(render_report(result, folder))


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A real run: a time step of 25 fs is too long for copper at 3500 K."""
    folder = tmp_path_factory.mktemp("real") / "run"
    structures = []
    for seed in range(2):
        atoms = bulk("Cu", cubic=True).repeat(2)
        atoms.rattle(0.02, seed=seed)
        structures.append(atoms)
    protocol = Protocol(
        temperatures_K=(3500.0,),
        timestep_fs=25.0,
        horizon_ps=0.5,
        replicas=2,
        record_interval_steps=1,
        frame_interval_steps=1,
        half_step_repeat=True,
    )
    run_stability(EMT, structures, protocol, output=folder)
    return folder


@pytest.fixture(scope="module")
def schema():
    text = files("nequip_decorr.md").joinpath("schema.json").read_text("utf-8")
    jsonschema.Draft202012Validator.check_schema(json.loads(text))
    return jsonschema.Draft202012Validator(json.loads(text))


def written(result, folder):
    """A result file as it stands on the disk."""
    save(result, folder / "result.json")
    return json.loads((folder / "result.json").read_text())


# --- the schema ----------------------------------------------------------------------


def test_a_real_result_follows_the_schema(real, schema):
    data = json.loads((real / "result.json").read_text())
    schema.validate(data)
    assert any(r["failure"] for r in data["replicas"])


def test_a_real_result_with_fidelity_follows_the_schema(real, schema, tmp_path):
    reference = tmp_path / "reference.extxyz"
    ase.io.write(reference, [bulk("Cu", cubic=True).repeat(2)] * 3)
    result = load(real / "result.json")
    folder = tmp_path / "run"
    (folder / "frames").mkdir(parents=True)
    for path in (real / "frames").iterdir():
        (folder / "frames" / path.name).write_bytes(path.read_bytes())
    add_fidelity(result, folder / "result.json", reference)
    data = json.loads((folder / "result.json").read_text())
    schema.validate(data)
    assert data["fidelity"]["temperature"]
    assert data["fidelity"]["distributions"]
    text = page_of(load(folder / "result.json"), folder).text
    assert "Fidelity of the stable part" in text
    assert "Cu-Cu" in text
    assert "against reference.extxyz" in text


@pytest.mark.parametrize("ensemble", ["langevin", "nose-hoover", "nve"])
def test_synthetic_results_follow_the_schema(schema, tmp_path, ensemble):
    schema.validate(written(run(ensemble=ensemble, traces=True), tmp_path))


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.update(schema="nequip_decorr.md/1"),
        lambda d: d["protocol"].pop("horizon_ps"),
        lambda d: d.update(extra=1),
        lambda d: d["replicas"][0].update(time_ps=-1.0),
        lambda d: d["replicas"][0].update(censored_by="bored"),
        lambda d: d["replicas"][0].update(failure=None, censored_by=None),
        lambda d: d["replicas"][0].update(trace={"time_ps": []}),
        lambda d: d.update(fidelity={}),
    ],
    ids=["version", "missing", "extra", "time", "reason", "end", "trace", "fidelity"],
)
def test_the_schema_refuses_what_is_wrong(schema, tmp_path, damage):
    data = written(run(), tmp_path)
    schema.validate(data)
    damage(data)
    assert not schema.is_valid(data)


# --- the page ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"traces": True},
        {"hazard_per_ps": 0.0, "traces": True},
        {"hazard_per_ps": 100.0},
        {"ensemble": "nve", "traces": True},
        {"temperatures_K": (300.0, 600.0, 1200.0)},
        {"temperatures_K": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), "n_structures": 2},
        {"n_structures": 1, "replicas": 1},
        {"n_structures": 8, "replicas": 8, "traces": True},
    ],
    ids=["some", "none", "all", "nve", "three", "six", "one", "many"],
)
def test_a_page_is_whole_and_needs_no_network(tmp_path, options):
    text = render_report(run(**options), tmp_path)
    page = Page(text)
    assert page.images
    for uri in page.images:
        kind, data = uri.split(";base64,")
        content = base64.b64decode(data, validate=True)
        if kind == "data:image/png":
            assert content.startswith(b"\x89PNG")
        else:
            assert kind == "data:image/svg+xml"
            assert ElementTree.fromstring(content).tag.endswith("svg")
    without_images = re.sub(r"data:[^\"]*", "", text)
    for outside in ("http", "//", "url(", "@import", "<script", "<link"):
        assert outside not in without_images
    assert not [name for name, _ in page.attributes if name == "href"]
    # every picture can be read aloud
    assert page.tags.count("img") == [n for n, _ in page.attributes].count("alt")


def test_the_headline_is_the_estimate(tmp_path):
    result = run(n_structures=16)
    survival = estimate_survival(result.replicas, result.horizon_ps)
    text = page_of(result, tmp_path).text
    score = survival.score
    assert f"score {score.value:.2f} [{score.low:.2f}, {score.high:.2f}]" in text
    assert f"{survival.n_failures} of {survival.n_replicas} failed" in text
    for cause, n in survival.causes.items():
        assert f"{cause} {n}" in text
    assert result.model["sha256"] in text
    assert "criteria.max_force_eV_per_A 100.0" in text


def test_no_failure_is_a_bound(tmp_path):
    text = page_of(run(hazard_per_ps=0.0), tmp_path).text
    assert "no failure in 16 replicas" in text
    assert "S(10 ps) >= 0.83" in text
    assert "at least 0.83" in text
    assert "100 %" not in text
    assert "1.00" not in text


def test_names_are_escaped(tmp_path):
    result = run(n_structures=1, replicas=2, hazard_per_ps=5.0)
    nasty = "<script>alert('x')</script> & \"quoted\""
    replicas = tuple(
        replace(r, structure_name=nasty, failure=replace(r.failure, message=nasty))
        for r in result.replicas
    )
    model = {**result.model, "path": f"models/{nasty}"}
    text = render_report(replace(result, replicas=replicas, model=model), tmp_path)
    page = Page(text)
    assert "script" not in page.tags
    assert "<script>alert('x')</script> & \"quoted\"" in page.text


def test_an_incomplete_run_says_so(tmp_path):
    assert "not complete" in page_of(replace(run(), complete=False), tmp_path).text
    assert "not complete" not in page_of(run(), tmp_path).text


def test_every_end_is_listed(tmp_path):
    result = run(n_structures=2, replicas=1, hazard_per_ps=0.0)
    stopped = replace(result.replicas[1], time_ps=3.0, censored_by="out_of_memory")
    page = page_of(replace(result, replicas=(result.replicas[0], stopped)), tmp_path)
    assert "10 survived to the horizon" in page.text
    assert "3 censored: out_of_memory" in page.text
    assert "1 replica stopped before the horizon" in page.text


def test_each_temperature_has_its_row(tmp_path):
    text = page_of(run(temperatures_K=(300.0, 1200.0)), tmp_path).text
    rows = re.findall(r"(300 K|1200 K|all) (\d+) of (\d+)", text)
    assert [(name, total) for name, _, total in rows] == [
        ("300 K", "16"),
        ("1200 K", "16"),
        ("all", "32"),
    ]


def test_drift_of_nve_alone(tmp_path):
    options = {"hazard_per_ps": 0.0, "n_structures": 2, "traces": True}
    text = page_of(run(ensemble="nve", **options), tmp_path).text
    assert "mean drift +0.3 ±" in text
    assert "Energy drift" not in page_of(run(**options), tmp_path).text
    one = {**options, "n_structures": 1, "replicas": 1}
    text = page_of(run(ensemble="nve", **one), tmp_path).text
    assert "drift +0.3 ±" in text
    assert "mean drift" not in text
    short = page_of(run(ensemble="nve", n_structures=1, replicas=1), tmp_path).text
    assert "no trace is long enough" in short
    assert "at least 20 increasing times" in short


# --- failures and their pictures -----------------------------------------------------


def test_a_real_failure_has_its_picture(real):
    result = load(real / "result.json")
    failed = [r for r in result.replicas if r.failed]
    page = page_of(result, real)
    assert "The last good frame before" in page.text
    alts = [value for name, value in page.attributes if name == "alt"]
    for each in failed:
        assert each.failure.message in page.text
        assert f"Atoms around the failing ones of replica {each.index}" in alts
    assert "at half the time step" in page.text


def test_a_failure_that_cannot_be_shown_says_why(tmp_path):
    (tmp_path / "broken.extxyz").write_text("not a frame")
    failures = [
        {"atoms": ()},
        {"atoms": tuple(range(20))},
        {"atoms": (0,), "last_good_frame": None},
        {"atoms": (0,), "last_good_frame": "gone.extxyz"},
        {"atoms": (0,), "last_good_frame": "broken.extxyz"},
    ]
    result = run(n_structures=1, replicas=len(failures), hazard_per_ps=100.0)
    replicas = tuple(
        replace(r, failure=replace(r.failure, **change))
        for r, change in zip(result.replicas, failures, strict=True)
    )
    text = page_of(replace(result, replicas=replicas), tmp_path).text
    for reason in (
        "1 without a picture: no single atoms involved",
        "1 without a picture: 20 atoms involved",
        "1 without a picture: no frame was kept",
        "1 without a picture: gone.extxyz cannot be shown",
        "1 without a picture: broken.extxyz cannot be shown",
    ):
        assert reason in text


def test_many_failures_have_a_few_pictures(tmp_path):
    ase.io.write(tmp_path / "frame.extxyz", bulk("Cu", cubic=True))
    result = run(n_structures=8, replicas=2, hazard_per_ps=100.0)
    replicas = tuple(
        replace(
            r, failure=replace(r.failure, atoms=(0,), last_good_frame="frame.extxyz")
        )
        for r in result.replicas
    )
    page = page_of(replace(result, replicas=replicas), tmp_path)
    alts = [value for name, value in page.attributes if name == "alt"]
    assert sum(a.startswith("Atoms around") for a in alts) == MAX_PICTURES
    assert "The 4 later failures are only in the table" in page.text


@pytest.mark.parametrize(
    ("cause", "time_ps", "words"),
    [
        ("none", None, "survives"),
        ("overlap", 1.25, "overlap at 1.25 ps"),
        ("exception", None, "exception"),
    ],
    ids=["survives", "fails", "no-time"],
)
def test_the_repeat_at_half_the_step(tmp_path, cause, time_ps, words):
    result = run(n_structures=1, replicas=1, hazard_per_ps=100.0)
    (only,) = result.replicas
    failure = replace(only.failure, half_step_cause=cause, half_step_time_ps=time_ps)
    changed = replace(result, replicas=(replace(only, failure=failure),))
    assert words in page_of(changed, tmp_path).text
    assert "half the time step" not in page_of(result, tmp_path).text


# --- files ---------------------------------------------------------------------------


def test_the_page_is_written(real, tmp_path):
    write_report(load(real / "result.json"), real, tmp_path / "page.html")
    Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_a_run_without_replicas(tmp_path):
    with pytest.raises(UserError, match="at least one replica"):
        render_report(replace(run(), replicas=()), tmp_path)


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setattr(figure, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"nequip-decorr\[plot\]"):
        render_report(run(), tmp_path)


def test_failures_come_earliest_first(tmp_path):
    result = run(n_structures=1, replicas=3, hazard_per_ps=100.0)
    replicas = tuple(
        replace(r, time_ps=t, failure=Failure("overlap", 1, t, f"failed at {t}"))
        for r, t in zip(result.replicas, (3.0, 1.0, 2.0), strict=True)
    )
    text = page_of(replace(result, replicas=replicas), tmp_path).text
    places = [text.index(f"failed at {t}") for t in (1.0, 2.0, 3.0)]
    assert places == sorted(places)
