"""Answers from records whose effects are known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from nequip_decorr.study.answers import Answer, in_words, power_in_words
from nequip_decorr.study.questions import Question
from nequip_decorr.study.report.result import findings
from nequip_decorr.study.statistics import Effect
from tests.support.synthetic_study import synthetic_study


def answers(*args, **kwargs):
    return findings(synthetic_study(*args, **kwargs)).answers


def test_a_large_effect(tmp_path):
    given = answers(tmp_path / "s", log_ratio=1.0)
    first = given[0]
    assert first.question.primary
    assert first.verdict == "longer"
    assert first.effect.low < np.exp(1.0) < first.effect.high
    assert first.p_value == first.effect.p_value
    assert first.events == ("64/64", "64/64")
    by_text = {a.question.text: a for a in given}
    # hot and hotter are told apart, and so are kinds of event
    assert by_text["variant-1: time to unphysical geometry, hotter@2400K"].effect
    explosion = by_text["variant-1: time to an explosion, hot@1200K"]
    assert explosion.effect is None
    assert explosion.verdict.startswith("not followed")
    assert by_text["variant-1: forces_rmse, out"].verdict == "larger"


def test_replicas_of_a_structure_are_told_apart_by_their_seed(tmp_path):
    """In whatever order they are; what only one model has is left out."""
    folder = synthetic_study(tmp_path / "s", log_ratio=1.0, replicas=2)
    logs = {"none": [], "variant-1": []}
    for path in sorted((folder.path / "records").glob("*md-hot.json")):
        record = json.loads(path.read_text())
        own = record["result"]["replicas"]
        times = {(r["structure"], r["seed"]): r["unphysical"]["time_ps"] for r in own}
        if record["variant"] == "none":
            own.reverse()
        elif record["seed"] == 1:
            (lost,) = [r for r in own if (r["structure"], r["seed"]) == (3, 1)]
            own.remove(lost)
        logs[record["variant"]].append(times)
        path.write_text(json.dumps(record))
    answer = findings(folder).answers[0]
    assert answer.events == ("127/127", "127/127")
    pairs = [*zip(logs["variant-1"], logs["none"], strict=True)]
    means = [
        np.mean(
            [
                np.log(ours[key] / theirs[key])
                for key in ours
                if (number, key) != (0, (3, 1))
            ]
        )
        for number, (ours, theirs) in enumerate(pairs)
    ]
    assert answer.effect.value == pytest.approx(np.exp(np.mean(means)))


def test_explosions_after_another_end_are_not_followed(tmp_path):
    """As `compare` does: unphysical geometry does not censor them independently."""
    folder = synthetic_study(tmp_path / "s", log_ratio=1.0)
    for path in (folder.path / "records").glob("*md-hot.json"):
        record = json.loads(path.read_text())
        record["result"]["replicas"][0]["explosion"]["happened"] = True
        record["result"]["replicas"][0]["unphysical"]["happened"] = False
        if record["variant"] == "variant-1":
            record["result"]["replicas"][1]["explosion"]["happened"] = True
            record["result"]["replicas"][1]["unphysical"]["happened"] = False
        path.write_text(json.dumps(record))
    by_text = {a.question.text: a for a in findings(folder).answers}
    explosion = by_text["variant-1: time to an explosion, hot@1200K"]
    assert explosion.verdict.startswith(
        "not followed: an unphysical geometry ended 104"
    )
    assert (explosion.effect, explosion.p_value) == (None, None)
    assert explosion.events == ("16/64", "8/64")
    geometry = by_text["variant-1: time to unphysical geometry, hot@1200K"]
    assert geometry.effect is not None
    said = "16 of 64 replicas, and 8 of the baseline's, exploded before the geometry "
    (note,) = geometry.notes
    assert note.startswith(f"{said}became unphysical: censored there. With these ")
    # all of them had an event then, at the times of the untouched study
    plain = answers(tmp_path / "t", log_ratio=1.0)[0].effect
    both = f"{plain.value:.3g} [{plain.low:.3g}, {plain.high:.3g}] times the baseline's"
    assert f"counted as events too, {both} (8 seeds)" in note


def test_no_event_in_either(tmp_path):
    given = answers(tmp_path / "s", scale_ps=1e6)
    times = [a for a in given if a.question.quantity == "time"]
    assert {a.verdict for a in times} == {"no event in either"}
    assert not any(a.notes for a in times)


def test_no_event_because_all_exploded_is_told(tmp_path):
    folder = synthetic_study(tmp_path / "s", scale_ps=1e6)
    for path in (folder.path / "records").glob("*md-hot.json"):
        record = json.loads(path.read_text())
        for replica in record["result"]["replicas"]:
            replica["explosion"] |= {"time_ps": 1.0, "happened": True}
            replica["unphysical"] |= {"time_ps": 1.0}
        path.write_text(json.dumps(record))
    answer = findings(folder).answers[0]
    assert (answer.verdict, answer.effect) == ("no event in either", None)
    assert answer.notes[0].startswith(
        "64 of 64 replicas, and 64 of the baseline's, exploded"
    )


def effect_of(value, low, high, seeds=8):
    return Effect(1.0, value, low, high, 0.01, seeds, 0.2)


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        (effect_of(1.5, 1.2, 1.9), "1.5 [1.2, 1.9] times the baseline's (8 seeds)"),
        (effect_of(1.5, 1.2, None), "1.5 [>= 1.2] times the baseline's (8 seeds)"),
        (effect_of(None, None, 0.4), "[<= 0.4] times the baseline's (8 seeds)"),
        (effect_of(0.5, None, None, 2), "0.5 times the baseline's (2 seeds, no inter"),
        (effect_of(None, None, None, 3), "ratio not known (3 seeds)"),
    ],
)
def test_an_effect_in_words(effect, words):
    assert in_words(effect).startswith(words)


def test_a_sentence_has_the_question_the_ratio_the_p_value_and_the_verdict():
    question = Question("zbl", "time", "hot@1200K", "unphysical", primary=True)
    answer = Answer(question, effect_of(1.5, 1.2, 1.9), 0.012, "longer")
    ratio = "1.5 [1.2, 1.9] times the baseline's (8 seeds)"
    asked = "zbl: time to unphysical geometry, hot@1200K"
    assert answer.sentence == f"{asked}: {ratio}, p = 0.012: longer"
    other = replace(answer, question=replace(question, primary=False))
    assert other.sentence == f"{asked}: {ratio}, p = 0.012, corrected: longer"


def test_no_effect(tmp_path):
    given = answers(tmp_path / "s", log_ratio=0.0)
    errors = [a for a in given if a.question.quantity == "error"]
    assert len(errors) == 4
    assert all(a.verdict.startswith("no difference shown") for a in errors)
    said = power_in_words(given[0])
    assert "power with 8 seeds" in said
    assert "x1.3" in said
    assert "x2" in said


def test_where_most_survive(tmp_path):
    first = answers(tmp_path / "s", log_ratio=0.3, scale_ps=15.0)[0]
    assert first.effect.method == "hazards"
    assert first.power is None
    assert "fewer than 80 % of the replicas" in power_in_words(first)
    assert "64" in first.events[0]


def with_times(folder, times, horizon_ps=10.0):
    """Set the time of the one replica of each model; ``times`` by variant."""
    for path in (folder.path / "records").glob("*md-hot.json"):
        record = json.loads(path.read_text())
        time_ps = times[record["variant"]][record["seed"] - 1]
        (first, *_) = record["result"]["replicas"]
        happened = time_ps < horizon_ps
        first["unphysical"] |= {"time_ps": time_ps, "happened": happened}
        record["result"] |= {"replicas": [first], "horizon_ps": horizon_ps}
        path.write_text(json.dumps(record))


def test_a_small_p_value_beside_an_interval_that_includes_1(tmp_path):
    """By hazards, ratios that are not rejected may be on both sides of others."""
    folder = synthetic_study(tmp_path / "s", seeds=3)
    with_times(folder, {"none": [5.0, 2.0, 1.0], "variant-1": [10.0, 5.0, 3.0]})
    answer = findings(folder).answers[0]
    assert answer.effect.low < 1 < (answer.effect.high or 2)
    assert answer.p_value < 0.05
    assert answer.verdict == "no difference shown: the interval includes 1"


def test_an_event_after_the_horizon_is_not_counted(tmp_path):
    """The last step may end after the horizon, as 3334 steps of 0.3 fs after 1 ps."""
    folder = synthetic_study(tmp_path / "s", seeds=3)
    times = {"none": [0.5, 0.2, 0.1], "variant-1": [0.9, 0.8, 1.0002]}
    with_times(folder, times, horizon_ps=2.0)
    assert findings(folder).answers[0].events == ("3/3", "3/3")
    for path in (folder.path / "records").glob("*md-hot.json"):
        record = json.loads(path.read_text())
        record["result"]["horizon_ps"] = 1.0
        path.write_text(json.dumps(record))
    assert findings(folder).answers[0].events == ("2/3", "3/3")


def test_the_rest_is_corrected_together(tmp_path):
    given = answers(tmp_path / "s", variants=4)
    others = [a for a in given if not a.question.primary and a.effect is not None]
    smallest = min(others, key=lambda a: a.effect.p_value)
    n = len([a for a in others if a.effect.p_value is not None])
    assert smallest.p_value == pytest.approx(min(1.0, n * smallest.effect.p_value))
    assert all(a.p_value >= a.effect.p_value for a in others)


@pytest.mark.parametrize("seeds", [1, 2])
def test_no_verdict_below_three_seeds(tmp_path, seeds):
    for answer in answers(tmp_path / "s", seeds=seeds, log_ratio=2.0):
        assert answer.p_value is None
        if answer.effect is not None:
            assert answer.verdict == "no verdict from fewer than three seeds"
            assert answer.effect.low is None
            assert answer.effect.high is None


def test_the_same_ratio_of_coarse_times_in_every_seed(tmp_path):
    folder = synthetic_study(tmp_path / "s", seeds=3)
    with_times(folder, {"none": [1.0] * 3, "variant-1": [2.0] * 3})
    answer = findings(folder).answers[0]
    assert answer.effect.value == pytest.approx(2)
    assert (answer.effect.low, answer.p_value) == (None, None)
    assert answer.verdict == "no verdict: the same ratio in every seed"


def test_half_done(tmp_path):
    """Models are compared as far as they are there."""
    missing = tuple(f"{v}_{s}.md-hot" for v in ("none", "variant-1") for s in (6, 7))
    found = findings(
        synthetic_study(tmp_path / "s", missing=missing, failed=("variant-1_8.md-hot",))
    )
    assert found.answers[0].effect.seeds == 5
    assert not found.complete
    nothing = tuple(
        f"{v}_{s}.{stage}"
        for v in ("none", "variant-1")
        for s in range(1, 9)
        for stage in ("train", "test", "md-hot", "md-hotter")
    )
    given = answers(tmp_path / "t", missing=nothing)
    assert {a.verdict for a in given} == {"not known yet"}


def test_seeds_that_dropped_out(tmp_path):
    """A model failed, another is not there yet: said where the answer is affected."""
    folder = synthetic_study(
        tmp_path / "s",
        failed=("variant-1_8.md-hot",),
        missing=("none_6.md-hot", "variant-1_6.md-hot"),
    )
    by_text = {a.question.text: a for a in findings(folder).answers}
    hot = by_text["variant-1: time to unphysical geometry, hot@1200K"]
    assert hot.left_out == {
        6: "variant-1: not done; none: not done",
        8: "variant-1: md-hot failed",
    }
    assert "(6 of 8 seeds)" in hot.sentence
    others = [a for text, a in by_text.items() if "hot@" not in text]
    assert not any(a.left_out for a in others)


def test_a_training_that_failed_is_the_reason_for_all(tmp_path):
    nothing = tuple(f"none_2.{s}" for s in ("test", "md-hot", "md-hotter"))
    given = answers(tmp_path / "s", failed=("none_2.train",), missing=nothing)
    assert {str(a.left_out) for a in given} == {"{2: 'none: train failed'}"}


def test_the_price_of_a_training_on_a_gpu_is_wall_time(tmp_path):
    """Its CPU time says nothing; without a GPU, wall time is that of others too."""
    folder = synthetic_study(tmp_path / "s")
    for path in (folder.path / "records").glob("variant-1_*.train.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "wall_s": 3 * record["wall_s"]}))

    def price():
        by_quantity = {a.question.quantity: a for a in findings(folder).answers}
        return by_quantity["training time"].effect.value

    def with_gpus(gpus):
        for path in (folder.path / "records").glob("*.train.json"):
            record = json.loads(path.read_text())
            path.write_text(json.dumps({**record, "machine": {"gpus": gpus}}))

    assert price() == pytest.approx(1.0)
    for gpus, expected in ((None, 1.0), ("", 1.0), ("-1", 1.0), ("0", 3.0)):
        with_gpus(gpus)
        assert price() == pytest.approx(expected)


def test_one_variant_asks_nothing(tmp_path):
    assert answers(tmp_path / "s", variants=1) == []
