"""The summary on the terminal: both kinds of event, never one number of both."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from nequip_decorr.md.report.terminal import print_summary
from nequip_decorr.md.results import Event
from tests.support.synthetic import run

OVERLAP = Event("overlap", 200, 0.2, "O3, O7 are 1.0 A apart")
RUNAWAY = Event("runaway", 900, 0.9, "temperature is 11000 K", half_step_cause="none")


def summary(*ends):
    """The summary of replicas that end so: time, events and reason, two a structure."""
    made = run(hazard_per_ps=0.0, horizon_ps=1.0, n_structures=len(ends) // 2)
    replicas = tuple(
        replace(r, time_ps=end, unphysical=overlap, explosion=runaway, censored_by=why)
        for r, (end, overlap, runaway, why) in zip(made.replicas, ends, strict=True)
    )
    text = io.StringIO()
    console = Console(file=text, width=120)
    print_summary(replace(made, replicas=replicas), Path("run/result.json"), console)
    return text.getvalue()


SURVIVES = (1.0, None, None, "horizon")
ENDS_UNPHYSICAL = (0.2, OVERLAP, None, None)
GOES_ON = (1.0, OVERLAP, None, "horizon")
EXPLODES_LATER = (0.9, OVERLAP, RUNAWAY, None)
EXPLODES = (0.9, None, RUNAWAY, None)
LOST = (0.5, None, None, "interrupt")
UNKNOWN = (0.2, None, None, "not_followed")


def row(text, kind):
    return re.search(rf"^ {kind} .*$", text, re.MULTILINE)[0].split()


def test_both_kinds_have_a_row_and_a_line():
    text = summary(SURVIVES, GOES_ON, EXPLODES_LATER, EXPLODES_LATER)
    assert row(text, "unphysical")[3:6] == ["3", "of", "4"]
    assert row(text, "unphysical")[-2:] == ["overlap", "3"]
    assert row(text, "explosion")[3:6] == ["2", "of", "4"]
    assert row(text, "explosion")[-2:] == ["runaway", "2"]
    assert re.search(r"^unphysical geometry: score .* 3 of 4 failed", text, re.M)
    assert re.search(r"^explosion: score .* 2 of 4 failed", text, re.M)
    # none was lost to the other kind or otherwise
    assert "not followed" not in text
    assert "lost" not in text


def test_after_the_first_event_explosions_are_not_followed():
    text = summary(ENDS_UNPHYSICAL, ENDS_UNPHYSICAL)
    assert re.search(r"^explosion: not followed: 2 of 2 replicas ended", text, re.M)
    assert "; run md with --until explosion to follow replicas further" in text
    assert row(text, "explosion")[3:] == ["0", "of", "2", "2", "?", "?"]
    assert "no failure" not in text


def test_some_not_followed_and_some_lost():
    text = summary(ENDS_UNPHYSICAL, EXPLODES, LOST, SURVIVES)
    assert row(text, "unphysical")[3:8] == ["1", "of", "4", "1", "1"]
    assert row(text, "explosion")[3:8] == ["1", "of", "4", "1", "1"]


def test_one_explosion_that_was_seen_is_no_estimate():
    """Who ended unphysical might have exploded: the rest is not a sample of all."""
    text = summary(*[ENDS_UNPHYSICAL] * 3, EXPLODES)
    assert row(text, "explosion")[3:9] == ["1", "of", "4", "3", "?", "?"]
    assert re.search(
        r"^explosion: not followed: 1 had the event, and 3 of 4 replicas ended at an "
        r"unphysical geometry; run md with --until explosion",
        text,
        re.M,
    )
    # the other kind is estimated; who exploded is censored there
    assert re.search(r"^unphysical geometry: score .* 3 of 4 failed", text, re.M)
    assert "1 exploded before the geometry became unphysical" in text


def test_each_temperature_has_a_line():
    made = run(temperatures_K=(300.0, 1200.0), hazard_per_ps=0.0)
    hot = tuple(
        replace(r, unphysical=OVERLAP, time_ps=0.2, censored_by=None)
        if r.temperature_K == 1200.0
        else r
        for r in made.replicas
    )
    text = io.StringIO()
    console = Console(file=text, width=120)
    print_summary(replace(made, replicas=hot), Path("run/result.json"), console)
    lines = text.getvalue().splitlines()
    (cold,) = (x for x in lines if x.startswith("unphysical geometry, 300 K: "))
    assert cold.startswith("unphysical geometry, 300 K: no failure in 16 replicas")
    (warm,) = (x for x in lines if x.startswith("unphysical geometry, 1200 K: "))
    assert "survived 2 % of 10 ps; 16 of 16 failed" in warm
    # and none of both
    assert not any(x.startswith("unphysical geometry: ") for x in lines)


def test_the_table_fits_eighty_columns():
    ends = [ENDS_UNPHYSICAL, EXPLODES, LOST, SURVIVES]
    made = run(hazard_per_ps=0.0, horizon_ps=1.0, n_structures=2)
    replicas = tuple(
        replace(r, time_ps=end, unphysical=overlap, explosion=runaway, censored_by=why)
        for r, (end, overlap, runaway, why) in zip(made.replicas, ends, strict=True)
    )
    text = io.StringIO()
    result = replace(made, replicas=replicas)
    print_summary(result, Path("r.json"), Console(file=text, width=80))
    assert "…" not in text.getvalue()
    assert row(text.getvalue(), "unphysical")[-1] == "overlap"
    assert row(text.getvalue(), "explosion")[-1] == "runaway"
    assert "not reached" in text.getvalue()


def test_a_path_is_printed_as_it_is():
    text = io.StringIO()
    console = Console(file=text, width=120)
    print_summary(run(hazard_per_ps=0.0), Path("run [old]/result.json"), console)
    assert "result: run [old]/result.json" in text.getvalue()


def test_what_wider_limits_leave_open_is_said():
    text = summary(UNKNOWN, UNKNOWN)
    said = "not followed: 2 of 2 replicas ended at limits that no longer apply\n"
    assert text.count(said) == 2
    # another run of the same kind would not tell more
    assert "--until explosion" not in text
    assert row(text, "unphysical")[3:9] == ["0", "of", "2", "2", "?", "?"]
    text = summary(UNKNOWN, ENDS_UNPHYSICAL, SURVIVES, SURVIVES)
    one = "1 of 4 replicas ended at "
    assert f"unphysical geometry: not followed: 1 had the event, and {one}" in text
    assert (
        f"explosion: not followed: {one}limits that no longer apply and {one}" in text
    )


def test_events_come_by_time_with_kind_and_cause():
    text = summary(EXPLODES_LATER, ENDS_UNPHYSICAL)
    lines = re.findall(r"^ +([\d.]+) ps  (\w+) \((\w+)\): (.*) \[", text, re.M)
    assert lines == [
        ("0.2000", "unphysical", "overlap", OVERLAP.message),
        ("0.2000", "unphysical", "overlap", OVERLAP.message),
        ("0.9000", "explosion", "runaway", RUNAWAY.message),
    ]
    assert "at half the time step it survives" in text


def test_a_note_is_printed_once():
    text = summary(*[EXPLODES_LATER] * 16)
    assert text.count("resamples whole structures") == 1
    assert "... and 22 later events" in text


@pytest.mark.parametrize("complete", [True, False])
def test_whether_it_is_complete(complete):
    made = replace(run(hazard_per_ps=0.0), complete=complete)
    text = io.StringIO()
    print_summary(made, Path("r.json"), Console(file=text, width=120))
    assert ("r.json (incomplete)" in text.getvalue()) != complete
