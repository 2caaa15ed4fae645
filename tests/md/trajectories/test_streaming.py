"""Memory does not grow with the length of a file."""

import tracemalloc

import pytest

from tests.md.trajectories.test_formats import judge
from tests.support import trajectories as made

WRITERS = {
    "dump.lammpstrj": made.write_dump,
    "dump.lammpstrj.gz": made.write_dump,
    "md.traj": lambda path, frames: made.write_ase(path, frames, "traj"),
    "md.extxyz": lambda path, frames: made.write_ase(path, frames, "extxyz"),
    "XDATCAR": made.write_xdatcar,
    "vasprun.xml": made.write_vasprun,
}
#: What each frame may leave behind, bytes: a point of the trace, and no more.
A_FRAME = 1200
#: Numbers in a frame take at least this many bytes.
FRAME = 64 * 3 * 8


def peak(path, frames, write):
    write(path, frames)
    reading = {} if path.name.startswith("dump") else {"interval_steps": 10}
    tracemalloc.start()
    try:
        judge(path, protocol=None, **reading)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_ten_times_as_long(tmp_path, name):
    frames = made.script(made.oxide(), 60, drift_A=0.005)
    made.give(frames, forces=name != "XDATCAR")
    for n in (2, 6, 60):
        (tmp_path / str(n)).mkdir()
    peak(tmp_path / "2" / name, frames[:2], WRITERS[name])  # imports and caches
    short = peak(tmp_path / "6" / name, frames[:6], WRITERS[name])
    long = peak(tmp_path / "60" / name, frames, WRITERS[name])
    assert long - short < 54 * A_FRAME < 54 * FRAME
