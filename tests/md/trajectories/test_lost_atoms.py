"""Atoms that LAMMPS loses without an error: ``thermo_modify lost warn`` or ``ignore``.

It deletes them and goes on; the dump has fewer atoms from then on.
"""

import numpy as np
import pytest

from nequip_decorr import UserError
from nequip_decorr.md import Protocol
from tests.md.trajectories.test_formats import judge
from tests.md.trajectories.test_lammps_log import LOOP, METAL, ONE, WALL, run
from tests.support import trajectories as made


def dump(path, frames, gone, **how):
    """A dump in which these atoms (index: frames) are missing."""
    texts = []
    for number, atoms in enumerate(frames):
        head, *lines = made.dump_text(atoms, 10 * number, **how).split("ITEM: ATOMS")
        columns, *rows = lines[0].splitlines()
        kept = [r for r in rows if number not in gone.get(int(r.split()[0]) - 1, ())]
        head = head.replace(f"\n{len(rows)}\n", f"\n{len(kept)}\n")
        texts.append("\n".join([f"{head}ITEM: ATOMS{columns}", *kept, ""]))
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(texts))
    return path


@pytest.fixture
def frames():
    frames = made.script(made.oxide(), 8)
    made.give(frames)
    return frames


@pytest.mark.parametrize("coordinates", ["x", "xu", "xs"])
@pytest.mark.parametrize("shuffle", [None, 3])
def test_an_explosion_at_the_first_frame_without_them(
    tmp_path, frames, coordinates, shuffle
):
    gone = {5: range(3, 8), 40: range(3, 8), 41: range(6, 8)}
    path = tmp_path / "dump.lammpstrj"
    dump(path, frames, gone, coordinates=coordinates, shuffle=shuffle)
    (replica,) = judge(path).replicas
    event = replica.explosion
    assert (event.cause, event.step, event.time_ps) == ("blowup", 30, 0.03)
    assert event.atoms == (5, 40)
    assert event.message == "62 of 64 atoms are left, lost are Hf5, O40"
    assert event.last_good_frame == "frames/0000_last_good_explosion.extxyz"
    assert (replica.unphysical, replica.censored_by) == (None, None)
    assert len(replica.trace.time_ps) == 3
    assert np.isfinite(replica.trace.temperature_K).all()


def test_the_horizon_of_runs_that_all_explode(tmp_path, frames):
    """It is not known how long they should have been."""
    path = dump(tmp_path / "dump.lammpstrj", frames, {0: range(3, 8)})
    warned = []
    assert judge(path, warned=warned).horizon_ps == 0.03
    assert len(warned) == 1
    assert "the last explosion, 0.03 ps; give the intended length" in warned[0]
    horizon = {"protocol": Protocol(horizon_ps=0.07), "given": {"horizon_ps"}}
    assert judge(path, warned=[], **horizon).source["notes"] == []


def test_in_the_second_frame(tmp_path, frames):
    path = dump(tmp_path / "dump.lammpstrj", frames, {0: range(1, 8)})
    (replica,) = judge(path).replicas
    assert (replica.explosion.step, replica.explosion.atoms) == (10, (0,))


def test_beyond_the_horizon(tmp_path, frames):
    path = dump(tmp_path / "dump.lammpstrj", frames, {0: range(5, 8)})
    protocol = Protocol(horizon_ps=0.04)
    (replica,) = judge(path, protocol=protocol, given={"horizon_ps"}).replicas
    assert (replica.explosion, replica.censored_by) == (None, "horizon")


def test_a_dump_of_some_atoms_is_no_loss(tmp_path, frames):
    """`dump_modify thresh` and regions: atoms come and go."""
    for gone in ({0: [2, 3], 1: [4]}, {0: [2], 1: [3]}, {0: [6], 1: [4, 5, 6]}):
        path = dump(tmp_path / "dump.lammpstrj", frames, gone)
        with pytest.raises(UserError, match="dump all atoms, without region") as error:
            judge(path)
        assert "\n" not in str(error.value)


def test_other_atoms_are_refused(tmp_path, frames):
    path = dump(tmp_path / "dump.lammpstrj", frames, {7: range(4, 8)})
    text = path.read_text()
    at = text.index("TIMESTEP\n50")
    other = text[at:].replace("\n10 1 Hf", "\n65 1 Hf", 1)
    twice = text[at:].replace("\n10 1 Hf", "\n9 1 Hf", 1)
    for later in (other, twice):
        path.write_text(text[:at] + later)
        with pytest.raises(UserError, match="atoms of the first frame, got 63 or"):
            judge(path)


# --- with a log beside it ---


def test_a_frame_without_the_lost_atoms(tmp_path):
    """LAMMPS dumps what is left before it says so."""
    frames = made.script(made.oxide(), 4)
    frames[3] = frames[3][:10]
    folder = run(
        tmp_path, METAL + ONE + "ERROR: Lost atoms: original 64 current 10", frames
    )
    (replica,) = judge(folder).replicas
    assert (replica.explosion.cause, replica.explosion.step) == ("blowup", 30)


def test_a_warning_of_lost_atoms_is_an_explosion(tmp_path):
    """Between the frames of steps 0 and 20."""
    first, warning = ONE.index("        10 "), "WARNING: Lost atoms: original 64 ..."
    text = f"{ONE[:first]}{warning}\n{ONE[first:]}"
    folder = run(tmp_path, METAL + text + LOOP + WALL, interval=20)
    (replica,) = judge(folder).replicas
    event = replica.explosion
    assert (event.cause, event.step, event.time_ps) == ("blowup", 10, 0.01)
    assert event.message == "LAMMPS: Lost atoms: original 64 ..."
