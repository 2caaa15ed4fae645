from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from importlib.resources import files
from xml.etree import ElementTree

import ase.io
import jsonschema
import pytest
from ase.build import bulk

from nequip_decorr import plotting as figure
from nequip_decorr.errors import UserError
from nequip_decorr.md.report.html import render_report, write_report
from nequip_decorr.md.results import load, save
from nequip_decorr.md.statistics.fidelity import add_fidelity
from tests.support.page import Page
from tests.support.synthetic import run


def page_of(result, folder):
    return Page(render_report(result, folder))


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
    assert any(r["unphysical"] for r in data["replicas"])


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
    assert "Accuracy of the stable part" in text
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
        lambda d: d["replicas"][0].update(unphysical=None, censored_by=None),
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
        pytest.param(
            {"n_structures": 25, "replicas": 8, "traces": True}, marks=pytest.mark.slow
        ),
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


def test_the_model_and_its_limits_are_on_the_page(tmp_path):
    result = run()
    text = page_of(result, tmp_path).text
    assert result.model["sha256"] in text
    assert "criteria.max_force_eV_per_A 100.0" in text


def test_names_are_escaped(tmp_path):
    result = run(n_structures=1, replicas=2, hazard_per_ps=5.0)
    nasty = "<script>alert('x')</script> & \"quoted\""
    replicas = tuple(
        replace(r, structure_name=nasty, unphysical=replace(r.first, message=nasty))
        for r in result.replicas
    )
    model = {**result.model, "path": f"models/{nasty}"}
    text = render_report(replace(result, replicas=replicas, model=model), tmp_path)
    page = Page(text)
    assert "script" not in page.tags
    assert "<script>alert('x')</script> & \"quoted\"" in page.text


def test_an_incomplete_run_says_so(tmp_path):
    assert "incomplete" in page_of(replace(run(), complete=False), tmp_path).text
    assert "incomplete" not in page_of(run(), tmp_path).text


def test_drift_of_nve_alone(tmp_path):
    options = {"hazard_per_ps": 0.0, "n_structures": 2, "traces": True}
    text = page_of(run(ensemble="nve", **options), tmp_path).text
    assert "mean drift +0.3 ±" in text
    assert "Energy drift" not in page_of(run(**options), tmp_path).text
    assert "over 2 structures" in text
    both = page_of(
        run(ensemble="nve", temperatures_K=(300.0, 600.0), **options), tmp_path
    )
    assert "300 K: mean drift" in both.text
    assert "600 K: mean drift" in both.text
    replicas = {**options, "n_structures": 1, "replicas": 3}
    text = page_of(run(ensemble="nve", **replicas), tmp_path).text
    assert "(3 replicas of one structure, no interval)" in text
    one = {**options, "n_structures": 1, "replicas": 1}
    text = page_of(run(ensemble="nve", **one), tmp_path).text
    assert "drift +0.3 ±" in text
    assert "mean drift" not in text
    short = page_of(run(ensemble="nve", n_structures=1, replicas=1), tmp_path).text
    assert "no trace is long enough" in short
    assert "at least 20 increasing times" in short


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
