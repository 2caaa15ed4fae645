"""What a person sees while replicas run."""

import io
import re

import pytest
from rich.console import Console

from nequip_decorr.md.running import progress
from nequip_decorr.md.running.progress import Display


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def shown(steps, clock, *, terminal, events=None, then=None, after_s=40.0):
    """What a display writes from its start to ``after_s`` later."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100)
    events = events or [0] * len(steps)
    display = Display(steps, events, n_steps=100, timestep_fs=2.0, console=console)
    with display:
        steps[:] = then or steps
        clock.now += after_s
        display.refresh()
    return display, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())


@pytest.mark.parametrize("terminal", [True, False])
def test_who_is_left(clock, terminal):
    # one runs at step 50 after an overlap, one waits, one survived, one had an overlap
    # and exploded, one exploded
    steps, events = [50, 0, ~100, ~30, ~99], [1, 0, 0, 3, 2]
    _, text = shown(steps, clock, terminal=terminal, events=events)
    assert "2 of 5 replicas to finish, 2 unphysical, 2 exploded" in text


def test_the_share_that_is_done(clock):
    """50 steps of one and 100 of another are left of 500; what failed is done."""
    _, text = shown([50, 0, ~100, ~30, ~99], clock, terminal=False)
    assert text.startswith(" 70%")


def test_the_rate_counts_this_session_alone(clock):
    """A resumed replica brings 50 steps along, an ended one 100: neither counts."""
    display, text = shown([50, 0, ~100], clock, terminal=False, then=[100, ~50, ~100])
    # 100 steps of 2 fs in 40 s
    rate = 100 * 2e-6 / 40 * 86400
    assert display.ns_per_day == pytest.approx(rate)
    assert f"{rate:.3g} ns/day" in text


def test_the_time_left(clock):
    """100 steps in 40 s, 150 to go."""
    _, text = shown([50, 0, 0], clock, terminal=False, then=[100, 25, 25])
    assert "1 min 00 s left" in text


def test_lines_are_not_written_at_every_step(clock):
    _, text = shown([0], clock, terminal=False, after_s=0.5)
    assert text == ""


def test_silence(clock, capsys):
    display = Display([0], [0], n_steps=1, timestep_fs=1.0, console=None)
    with display:
        clock.now += 40.0
        display.refresh()
    assert capsys.readouterr() == ("", "")
