"""What the page says first: an answer for each kind of event."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nequip_decorr.errors import UserError
from nequip_decorr.md.report.answer import (
    answer_lines,
    notes,
    survival_table,
    survivals_of,
)
from nequip_decorr.md.report.html import render_report
from nequip_decorr.md.results import KINDS, Event
from nequip_decorr.md.statistics.survival import estimate_survival
from tests.support.page import Page
from tests.support.synthetic import replica, run


def two_kinds(n=8, horizon_ps=10.0, exploding=3):
    """All become unphysical, one picosecond apart; some explode half a ps later."""
    made = []
    for k in range(n):
        at = 1.0 + k
        boom = Event("blowup", round((at + 0.5) * 1000), at + 0.5, f"boom {k}")
        made.append(
            replace(
                replica(k, time_ps=at, cause="overlap", structure=k),
                explosion=boom if k < exploding else None,
                time_ps=at + 0.5 if k < exploding else horizon_ps,
                censored_by=None if k < exploding else "horizon",
            )
        )
    return replace(run(horizon_ps=horizon_ps), replicas=tuple(made))


def test_each_kind_has_its_own_estimate(tmp_path):
    result = two_kinds()
    page = Page(render_report(result, tmp_path))
    assert page.headings[1:3] == ["Unphysical geometry", "Explosion"]
    for kind in KINDS:
        survival = estimate_survival(result.replicas, result.horizon_ps, kind)
        (row,) = [
            row for row in page.table("score [95 %]", "causes") if row["event"] == kind
        ]
        score = survival.score
        shown = f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"
        assert row["score [95 %]"] == shown
        assert f"score {shown}" in page.text
        assert row["happened"] == f"{survival.n_failures} of 8"
        assert row["causes"] == ", ".join(
            f"{c} {n}" for c, n in survival.causes.items()
        )
    # 8 and 3 happened; no number is of both
    assert "8 of 8 became unphysical" in page.text
    assert "3 of 8 exploded" in page.text
    assert "11" not in page.text.split("Events")[0]


def test_temperatures_are_never_pooled():
    result = run(temperatures_K=(300.0, 1200.0), hazard_per_ps=0.3)
    rows = survival_table(survivals_of(result)).rows
    assert [row[:2] for row in rows] == [
        (kind, kelvin) for kind in KINDS for kelvin in ("300 K", "1200 K")
    ]
    for row in rows[:2]:
        kelvin = float(row[1].split()[0])
        alone = [r for r in result.replicas if r.temperature_K == kelvin]
        n = sum(r.unphysical is not None for r in alone)
        assert row[2] == f"{n} of {len(alone)}"
    lines = answer_lines(survivals_of(result)["unphysical"])
    assert [line.where for line in lines] == ["300 K", "1200 K"]


def test_a_ramp_names_both_ends():
    result = run(temperatures_K=(300.0,))
    protocol = {**result.protocol, "ensemble": "ramp", "ramp_end_temperature_K": 3000.0}
    survivals = survivals_of(replace(result, protocol=protocol))
    assert list(survivals["explosion"]) == ["300 to 3000 K"]


def test_no_event_is_a_bound(tmp_path):
    text = Page(render_report(run(hazard_per_ps=0.0), tmp_path)).text
    assert "0 of 16 became unphysical" in text
    assert "0 of 16 exploded" in text
    # 0.05^(1/8): eight structures, whose replicas may be alike
    assert "score >= 0.69" in text
    assert "100 %" not in text
    assert "1.00" not in text


def test_explosions_that_could_not_be_seen_are_not_followed():
    result = run(hazard_per_ps=100.0)
    (line,) = answer_lines(survivals_of(result)["explosion"])
    assert line.count == "not followed"
    assert "--until explosion" in line.detail
    assert "score" not in line.detail
    # some of them: counted, and said
    some = (*result.replicas[:3], *run(hazard_per_ps=0.0).replicas[3:])
    (line,) = answer_lines(survivals_of(replace(result, replicas=some))["explosion"])
    assert line.count == "0 of 16 exploded, 3 not followed"


def test_a_score_over_less_than_the_horizon_says_so():
    stopped = replica(0, time_ps=4.0, censored_by="interrupt")
    result = replace(run(), replicas=(stopped,))
    for each in survivals_of(result).values():
        (line,) = answer_lines(each)
        assert line.detail.endswith("over the first 4 ps")


def test_what_is_not_followed_has_no_numbers():
    rows = survival_table(survivals_of(run(hazard_per_ps=100.0))).rows
    explosion = dict(
        zip(
            survival_table(survivals_of(run())).columns,
            rows[1],
            strict=True,
        )
    )
    assert explosion["not followed"] == "16"
    assert explosion["score [95 %]"] == explosion["S(τ) [95 %]"] == "-"
    assert explosion["median"] == "-"


def test_what_is_not_followed_has_no_curve_and_no_bound(tmp_path):
    """Three ended unphysical; what the others did is not that of all."""
    some = run(hazard_per_ps=100.0).replicas[:3]
    result = run(hazard_per_ps=0.0)
    result = replace(result, replicas=(*some, *result.replicas[3:]))
    page = Page(render_report(result, tmp_path))
    curves = [value for name, value in page.attributes if "Kaplan" in (value or "")]
    assert curves == ["Kaplan-Meier curves against time: Unphysical geometry"]
    (note,) = (n for n in notes(survivals_of(result)) if n.startswith("explosion"))
    assert note.startswith("explosion: 3 not followed beyond an unphysical geometry")


def test_notes_say_where_they_apply():
    result = run(temperatures_K=(300.0, 1200.0), n_structures=2, hazard_per_ps=0.0)
    hot = [r for r in result.replicas if r.temperature_K == 1200.0]
    lost = replace(hot[0], time_ps=1.0, censored_by="interrupt")
    replicas = tuple(lost if r is hot[0] else r for r in result.replicas)
    found = notes(survivals_of(replace(result, replicas=replicas)))
    assert len(found) == len(set(found))
    (everywhere,) = (note for note in found if "resamples replicas" in note)
    assert everywhere.startswith("the score's interval")
    (there,) = (note for note in found if "stopped before the horizon" in note)
    assert there.startswith("unphysical, 1200 K; explosion, 1200 K: 1 replica stopped")


def test_without_replicas():
    with pytest.raises(UserError, match="at least one replica"):
        survivals_of(replace(run(), replicas=()))
