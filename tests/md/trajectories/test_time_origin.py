"""Time counts from the first frame, also where LAMMPS counts from an equilibration."""

import re

import pytest

from nequip_decorr.md import Protocol
from tests.md.trajectories.test_formats import judge
from tests.md.trajectories.test_lammps_log import LOOP, METAL, ONE, WALL, run
from tests.support import trajectories as made

LOST = "Lost atoms: original 64 current 60"


def later(text):
    """Thermo output of steps 1000, 1010 and 1020, after an equilibration."""
    before, after = (re.sub(r"^ +(\d+) ", at, ONE, flags=re.M) for at in AT)
    return before + LOOP + "".join(after.splitlines(keepends=True)[:1]) + text(after)


AT = (lambda m: f" {50 * int(m[1])} ", lambda m: f" {1000 + int(m[1])} ")


def lines(after):
    return "".join(after.splitlines(keepends=True)[1:])


@pytest.mark.parametrize(
    ("text", "step", "message"),
    [
        (lambda after: f"{lines(after)}ERROR: {LOST}\n", 30, f"LAMMPS: {LOST}"),
        (
            lambda after: lines(after).replace(" 1010 ", f"WARNING: {LOST}\n 1010 "),
            10,
            f"LAMMPS: {LOST}",
        ),
        (
            lambda after: lines(after).replace("71.468937", "nan"),
            10,
            "log.lammps has a number that is not finite",
        ),
        (
            lambda after: lines(after).replace("71.468937", "20000"),
            10,
            "temperature is 20000 K, limit 10000 K",
        ),
    ],
    ids=["error", "warning", "no number", "hot"],
)
def test_explosions_in_the_log(tmp_path, text, step, message):
    folder = run(tmp_path, METAL + later(text), first=1000)
    (replica,) = judge(folder).replicas
    assert (replica.explosion.step, replica.time_ps) == (step, step / 1000)
    assert replica.explosion.message == message


def test_an_error_before_the_next_frame(tmp_path):
    """Output was due at step 1030, and a frame at step 1040."""
    text = METAL + later(lambda after: f"{lines(after)}ERROR: {LOST}\n")
    frames = made.script(made.oxide(), 2)
    folder = run(tmp_path, text, frames, first=1000, interval=20)
    assert judge(folder).replicas[0].explosion.step == 30


def test_the_end_and_the_trace(tmp_path):
    """Frames at steps 1000, 1008 and 1016; the run ends at step 1020."""
    text = METAL + later(lambda after: lines(after) + LOOP + WALL)
    folder = run(tmp_path, text, made.script(made.oxide(), 3), first=1000, interval=8)
    protocol = Protocol(horizon_ps=0.02)
    (replica,) = judge(folder, protocol=protocol, given={"horizon_ps"}).replicas
    assert (replica.time_ps, replica.censored_by) == (0.02, "horizon")
    assert replica.trace.time_ps == (0.0, 0.01)
    assert replica.trace.temperature_K == (80.0, 71.468937)
    assert judge(folder).horizon_ps == 0.02
    # a horizon that it does not reach
    protocol = Protocol(horizon_ps=0.03)
    (replica,) = judge(folder, protocol=protocol, given={"horizon_ps"}).replicas
    assert (replica.time_ps, replica.censored_by) == (0.016, "file_ends")
