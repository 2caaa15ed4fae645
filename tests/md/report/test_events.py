"""Events, their pictures, and the end of every replica."""

from __future__ import annotations

from dataclasses import replace

import ase.io
import pytest
from ase.build import bulk

from nequip_decorr.md.report.events import (
    MAX_PICTURES,
    count_in_words,
    event_table,
    galleries,
    replica_table,
)
from nequip_decorr.md.report.html import render_report
from nequip_decorr.md.results import KINDS, Event, load
from tests.support.page import Page
from tests.support.synthetic import replica, run

BOOM = Event("blowup", 3000, 3.0, "boom", atoms=(7,))
BOTH = replace(replica(0, time_ps=2.0, cause="overlap"), explosion=BOOM, time_ps=3.0)


def rows(table):
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def failing(n, **changes):
    """A run whose only structure's replicas all become unphysical."""
    result = run(n_structures=1, replicas=n, hazard_per_ps=100.0)
    return replace(
        result,
        replicas=tuple(
            replace(r, unphysical=replace(r.first, **changes)) for r in result.replicas
        ),
    )


def test_events_come_earliest_first_whatever_their_kind():
    early = replace(replica(1, time_ps=2.5, cause="runaway"), structure_name="x")
    found = rows(event_table([BOTH, early, replica(2, time_ps=10.0)]))
    assert [(row["time (ps)"], row["event"], row["cause"]) for row in found] == [
        ("2", "unphysical", "overlap"),
        ("2.5", "explosion", "runaway"),
        ("3", "explosion", "blowup"),
    ]
    assert [row["replica"] for row in found] == ["0", "1", "0"]
    assert [row["atoms"] for row in found] == ["0, 5", "0, 5", "7"]
    assert found[2]["what happened"] == "boom"
    assert found[1]["structure"] == "x"


def test_kinds_are_counted_apart():
    assert count_in_words([BOTH]) == "1 unphysical geometry, 1 explosion"
    ended = replica(1, time_ps=2.0, cause="overlap")
    assert count_in_words([BOTH, ended]) == "2 unphysical geometries, 1 explosion"
    assert count_in_words([]) == "0 unphysical geometries, 0 explosions"


@pytest.mark.parametrize(
    ("found", "unphysical", "explosion", "end", "why"),
    [
        (BOTH, "overlap at 2 ps", "blowup at 3 ps", "3", "explosion"),
        (
            replica(0, time_ps=2.0, cause="overlap"),
            "overlap at 2 ps",
            "not followed after 2 ps",
            "2",
            "unphysical geometry",
        ),
        (
            replica(0, time_ps=2.0, cause="exception"),
            "not followed after 2 ps",
            "exception at 2 ps",
            "2",
            "explosion",
        ),
        (
            replace(BOTH, explosion=None, time_ps=10.0, censored_by="horizon"),
            "overlap at 2 ps",
            "none",
            "10",
            "reached the horizon",
        ),
        (
            replica(0, time_ps=4.0, censored_by="out_of_memory"),
            "none",
            "none",
            "4",
            "censored: out_of_memory",
        ),
        (
            replica(0, time_ps=4.0, censored_by="not_followed"),
            "not followed after 4 ps",
            "not followed after 4 ps",
            "4",
            "censored: not_followed",
        ),
    ],
    ids=["both", "unphysical", "explosion", "went on", "lost", "rejudged"],
)
def test_the_end_of_a_replica(found, unphysical, explosion, end, why):
    (row,) = rows(replica_table(replace(run(), replicas=(found,))))
    assert (row["unphysical"], row["explosion"]) == (unphysical, explosion)
    assert (row["end (ps)"], row["why"]) == (end, why)


@pytest.mark.parametrize("folder", ["real", "followed"])
def test_real_events_have_their_pictures(folder, request):
    folder = request.getfixturevalue(folder)
    result = load(folder / "result.json")
    page = Page(render_report(result, folder))
    found = page.table("event", "what happened")
    events = [(r, e) for r in result.replicas for k in KINDS if (e := r.event(k))]
    assert events
    assert len(found) == len(events)
    for r, event in events:
        assert event.message in [row["what happened"] for row in found]
        if len(event.atoms) in (1, 2):
            assert f"Atoms around the failing ones of replica {r.index}" in page.alts
    repeated = result.protocol["half_step_repeat"]
    assert ("at half the time step" in found[0]) == repeated


def test_the_run_that_goes_on_has_both_kinds(followed):
    """Else the tests of it would not test much."""
    result = load(followed / "result.json")
    assert any(r.unphysical and r.explosion for r in result.replicas)


def test_an_event_that_cannot_be_shown_says_why(tmp_path):
    (tmp_path / "broken.extxyz").write_text("not a frame")
    changes = [
        {"atoms": ()},
        {"atoms": tuple(range(20))},
        {"atoms": (0,), "last_good_frame": None},
        {"atoms": (0,), "last_good_frame": "gone.extxyz"},
        {"atoms": (0,), "last_good_frame": "broken.extxyz"},
    ]
    result = failing(len(changes))
    replicas = tuple(
        replace(r, unphysical=replace(r.first, **change))
        for r, change in zip(result.replicas, changes, strict=True)
    )
    (gallery,) = galleries(replace(result, replicas=replicas), tmp_path)
    assert not gallery.pictures
    said = "; ".join(gallery.missing)
    for reason in (
        "1 without a picture: no single atoms involved",
        "1 without a picture: 20 atoms involved",
        "1 without a picture: no frame was kept",
        "1 without a picture: gone.extxyz cannot be shown",
        "1 without a picture: broken.extxyz cannot be shown",
    ):
        assert reason in said


def test_the_earliest_of_each_kind_have_pictures(tmp_path):
    ase.io.write(tmp_path / "frame.extxyz", bulk("Cu", cubic=True))
    result = failing(MAX_PICTURES + 2, atoms=(0,), last_good_frame="frame.extxyz")
    boom = replace(BOOM, atoms=(1,), last_good_frame="frame.extxyz")
    exploding = replace(result.replicas[-1], explosion=boom)
    changed = replace(result, replicas=(*result.replicas[:-1], exploding))
    unphysical, explosion = galleries(changed, tmp_path)
    assert len(unphysical.pictures) == MAX_PICTURES
    assert unphysical.missing == ["2 later ones are only in the table"]
    assert [p.replica for p in explosion.pictures] == [exploding.index]
    assert explosion.missing == []
    times = [r.unphysical.time_ps for r in changed.replicas]
    shown = [times[p.replica] for p in unphysical.pictures]
    assert shown == sorted(times)[:MAX_PICTURES]


@pytest.mark.parametrize(
    ("cause", "time_ps", "words"),
    [
        ("none", None, "survives"),
        ("overlap", 1.25, "overlap at 1.25 ps"),
        ("exception", None, "exception"),
    ],
    ids=["survives", "fails", "no-time"],
)
def test_the_repeat_at_half_the_step(cause, time_ps, words):
    result = failing(1, half_step_cause=cause, half_step_time_ps=time_ps)
    (row,) = rows(event_table(result.replicas))
    assert row["at half the time step"] == words
    assert "at half the time step" not in event_table(failing(1).replicas).columns
