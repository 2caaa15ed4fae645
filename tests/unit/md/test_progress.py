"""What a person sees while replicas run."""

import io
import re

import pytest
from rich.console import Console

from nequip_decorr.md.progress import Display


def shown(steps, *, terminal, then=None):
    """What a display writes from its start to its end."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100)
    display = Display(steps, n_steps=100, timestep_fs=2.0, console=console)
    with display:
        steps[:] = then or steps
        display._next = 0.0
        display.refresh()
    return display, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())


@pytest.mark.parametrize("terminal", [True, False])
def test_who_is_alive(terminal):
    # one runs at step 50, one waits, one survived, two failed
    _, text = shown([50, 0, ~100, ~30, ~99], terminal=terminal)
    assert "3 of 5 replicas alive, 2 to go" in text


def test_the_share_that_is_done():
    """50 steps of one and 100 of another are left of 500; what failed is done."""
    _, text = shown([50, 0, ~100, ~30, ~99], terminal=False)
    assert text.startswith(" 70%")


def test_the_rate_counts_this_session_alone():
    """A resumed replica brings 50 steps along, an ended one 100: neither counts."""
    display, _ = shown([50, 0, ~100], terminal=False, then=[100, ~100, ~100])
    assert display._taken() - display._before == 150
    assert display.ns_per_day > 0


def test_silence(capsys):
    display = Display([0], n_steps=1, timestep_fs=1.0, console=None)
    with display:
        display._next = 0.0
        display.refresh()
    assert capsys.readouterr() == ("", "")
