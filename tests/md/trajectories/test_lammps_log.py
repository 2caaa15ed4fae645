"""LAMMPS' log: settings, thermo output in each style, and how a run ended.

The texts are those of LAMMPS (22 July 2025), shortened.
"""

import gzip
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

from nequip_decorr import UserError
from nequip_decorr.md import Protocol
from nequip_decorr.md.trajectories.lammps_log import read_log
from tests.md.trajectories.test_formats import judge
from tests.support import trajectories as made

HEAD = """LAMMPS (22 Jul 2025)
units real
atom_style atomic
variable dt index 4
pair_coeff * * model.nequip.pt2 Hf O # by type
timestep ${dt}
timestep 4
thermo 10
run 100
Setting up Verlet run ...
  Current step  : 0
  Time step     : 4
Per MPI rank memory allocation (min/avg/max) = 3.098 | 3.098 | 3.098 Mbytes
"""
ONE = """   Step          Temp          E_pair         E_mol          TotEng     Press
         0   80            -208.04731      1.5            -181.03158     -75.249883
        10   71.468937     -205.05154      0              -182.25676      158.9565
        20   49.674838     -197.32244      0              -181.47882      752.25869
"""
LOOP = (
    "Loop time of 0.045 on 1 procs for 20 steps with 108 atoms\n\nPair  | 0.01 | 0.01\n"
)
WALL = "Total wall time: 0:00:00\n"
MULTI = """------------ Step              0 ----- CPU =            0 (sec) -------------
TotEng   =      -181.03158 KinEng   =       25.5157 Temp     =        80.0000
PotEng   =      -206.54731 E_bond   =         0.0000 E_angle  =         0.0000
E_coul   =         0.0000 E_long   =         0.0000 Press    =       -75.2499
------------ Step             10 ----- CPU =    0.0101757 (sec) -------------
TotEng   =      -182.25676 KinEng   =        22.7948 Temp     =     71.468937
PotEng   =      -205.05154 E_bond   =         0.0000 E_angle  =         0.0000
------------ Step             20 ----- CPU =   0.01151172 (sec) -------------
TotEng   =      -181.47882 KinEng   =        15.8436 Temp     =     49.674838
PotEng   =      -197.32244 E_bond   =         0.0000 E_angle  =         0.0000
"""
YAML = """---
keywords: ['Step', 'Temp', 'KinEng', 'PotEng', 'TotEng', 'Press', ]
data:
  - [0, 80, 25.5, -206.54731, -181.03158, -75.2, ]
  - [10, 71.468937, 22.79, -205.05154, -182.25676, 158.95, ]
  - [20, 49.674838, 15.84, -197.32244, -181.47882, 752.25, ]
...
"""
CUSTOM = """     Time          Step          Temp          PotEng         TotEng
         0          0   80            -206.54731     -181.03158
        40         10   71.468937     -205.05154     -182.25676
WARNING: Something that is printed between the lines (src/some.cpp:12)
        80         20   49.674838     -197.32244     -181.47882
"""
#: 1 eV is 23.0605 kcal/mol
KCAL = 23.060548


def log(folder, text, name="log.lammps"):
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("style", [ONE, MULTI, YAML, CUSTOM])
def test_every_style_of_output(tmp_path, style):
    found = read_log(log(tmp_path, HEAD + style + LOOP + WALL))
    assert found.units == "real"
    assert found.timestep_fs == 4.0
    assert found.types == {"1": "Hf", "2": "O"}
    assert (found.finished, found.error, found.last_step) == (True, None, 20)
    expected = [
        [0, 80.0, -206.54731 / KCAL, -181.03158 / KCAL],
        [10, 71.468937, -205.05154 / KCAL, -182.25676 / KCAL],
        [20, 49.674838, -197.32244 / KCAL, -181.47882 / KCAL],
    ]
    np.testing.assert_allclose(found.rows, expected, rtol=1e-6)


def test_a_compressed_log_of_metal_units(tmp_path):
    text = HEAD.replace("units real", "units metal").replace(
        "timestep 4", "timestep 0.004"
    )
    path = tmp_path / "log.lammps.gz"
    with gzip.open(path, "wt") as handle:
        handle.write(text + ONE)
    found = read_log(path)
    assert found.timestep_fs == pytest.approx(4.0)
    assert found.rows[0, 2] == pytest.approx(-206.54731)
    # killed: neither an error nor the end
    assert (found.finished, found.error) == (False, None)


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("ERROR: Lost atoms: original 108 current 10", "blowup"),
        ("ERROR on proc 0: Bond atoms 12 13 missing on proc 0 at step 25", "blowup"),
        ("ERROR: Out of range atoms - cannot compute PPPM", "blowup"),
        ("ERROR: Non-numeric pressure - simulation unstable", "nonfinite"),
        ("ERROR on proc 1: Non-numeric atom coords - simulation unstable", "nonfinite"),
        ("ERROR: Simulation unstable", "blowup"),
        ("ERROR: System is too far from equilibrium", "blowup"),
        ("ERROR on proc 0: Bond extent > half of periodic box length", "blowup"),
        ("ERROR: Domain too large for neighbor bins", "blowup"),
        ("ERROR: Too many neighbor bins", "blowup"),
        ("ERROR on proc 3: Neighbor list overflow, boost neigh_modify one", "blowup"),
        ("ERROR: Cannot open file dump.lammpstrj: No space left on device", None),
        ("ERROR: Unrecognized pair style 'allegro'", None),
    ],
)
def test_errors(tmp_path, message, cause):
    """What shows at an output that is missing happened by then: at step 30."""
    found = read_log(log(tmp_path, f"{HEAD}{ONE}{message} (src/thermo.cpp:526)\n"))
    assert (found.error_cause, found.error_step, found.finished) == (cause, 30, False)


@pytest.mark.parametrize("bad", ["nan", "-nan", "inf"])
def test_the_first_number_that_is_none(tmp_path, bad):
    text = ONE.replace("71.468937", bad)
    assert read_log(log(tmp_path, HEAD + text)).nonfinite_step == 10


@pytest.mark.parametrize("style", [ONE, MULTI, YAML])
def test_a_warning_of_lost_atoms(tmp_path, style):
    """It is printed before the output of its step; the run goes on."""
    warning = "WARNING: Lost atoms: original 108 current 106 (src/thermo.cpp:497)\n"
    lines = style.splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if "-182.25676" in line)
    at -= style == MULTI
    text = HEAD + "".join([*lines[:at], warning, *lines[at:]]) + LOOP + WALL
    found = read_log(log(tmp_path, text))
    assert found.lost == (10, warning.strip())
    assert (found.last_step, found.error, found.finished) == (20, None, True)
    assert read_log(log(tmp_path, HEAD + style)).lost is None
    # a restart from step 0, in which nothing is lost
    assert read_log(log(tmp_path, text + style)).lost is None


def test_runs_that_follow_each_other(tmp_path):
    """Steps counted anew replace what was before; a restart overcomes an error."""
    again = ONE.replace("80  ", "90  ")
    assert read_log(log(tmp_path, HEAD + ONE + LOOP + again)).rows[0, 1] == 90.0
    text = HEAD + ONE + "ERROR: Lost atoms: original 108 current 10\n" + again
    found = read_log(log(tmp_path, text + LOOP + WALL))
    assert (found.error, found.finished) == (None, True)
    assert len(found.rows) == 3


def test_two_time_steps_are_none(tmp_path):
    text = HEAD + ONE + LOOP + "timestep 2\n" + ONE
    assert read_log(log(tmp_path, text)).timestep_fs is None


def test_other_units_are_refused(tmp_path):
    with pytest.raises(UserError, match="expected units metal or real, got 'lj'"):
        read_log(log(tmp_path, HEAD.replace("units real", "units lj") + ONE))


# --- with a dump beside it ---

METAL = HEAD.replace("units real", "units metal").replace(
    "timestep 4", "timestep 0.001"
)


def run(folder, log_text, frames=None, **how):
    """A folder with dump and log."""
    frames = frames or made.script(made.oxide(), 3)
    folder = folder / "run"
    folder.mkdir(exist_ok=True)
    made.write_dump(folder / "dump.lammpstrj", frames, **how)
    log(folder, log_text)
    return folder


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("ERROR: Lost atoms: original 108 current 10", "blowup"),
        ("ERROR: Non-numeric pressure - simulation unstable", "nonfinite"),
    ],
)
def test_an_error_is_an_explosion(tmp_path, message, cause):
    folder = run(tmp_path, METAL + ONE + message)
    (replica,) = judge(folder).replicas
    event = replica.explosion
    assert (event.cause, event.step, event.time_ps) == (cause, 30, 0.03)
    assert event.message == f"LAMMPS: {message.removeprefix('ERROR: ')}"
    assert (replica.time_ps, replica.censored_by) == (0.03, None)
    # the frame before it, of step 20
    assert event.last_good_frame == "frames/0000_last_good_explosion.extxyz"


def test_another_error_is_censored(tmp_path):
    folder = run(tmp_path, METAL + ONE + "ERROR: Cannot open file x: No space left")
    warned = []
    result = judge(
        folder,
        protocol=Protocol(horizon_ps=1.0),
        given={"horizon_ps"},
        warned=warned,
    )
    (replica,) = result.replicas
    assert replica.explosion is None
    assert (replica.time_ps, replica.censored_by) == (0.02, "file_ends")
    assert len(warned) == 1
    assert "No space left" in warned[0]
    assert result.source["notes"] == warned


@pytest.mark.parametrize(
    ("end", "horizon_ps", "time_ps", "censored_by"),
    [
        (LOOP + WALL, 0.02, 0.02, "horizon"),
        (LOOP + WALL, None, 0.02, "horizon"),
        (LOOP + WALL, 0.05, 0.02, "file_ends"),
        ("", 0.05, 0.02, "file_ends"),
        ("", 0.015, 0.015, "horizon"),
    ],
)
def test_a_run_without_an_error(tmp_path, end, horizon_ps, time_ps, censored_by):
    folder = run(tmp_path, METAL + ONE + end)
    given = set() if horizon_ps is None else {"horizon_ps"}
    protocol = Protocol(horizon_ps=horizon_ps or 10.0)
    (replica,) = judge(folder, protocol=protocol, given=given).replicas
    assert (replica.time_ps, replica.censored_by) == (time_ps, censored_by)


def test_the_end_of_the_run_lies_between_frames(tmp_path):
    """Frames at 0, 8 and 16 of 20 steps: none is missing, so it reached its end."""
    folder = run(tmp_path, METAL + ONE + LOOP + WALL, interval=8)
    (replica,) = judge(folder).replicas
    assert (replica.time_ps, replica.censored_by) == (0.02, "horizon")


def test_the_log_has_the_temperature(tmp_path):
    """10 sigma of 192 degrees of freedom, and no heat stored, is 606 K at 300 K."""
    hot = ONE.replace("71.468937", "650.5").replace("49.674838", "20000.")
    folder = run(tmp_path, METAL + hot + LOOP + WALL)
    (replica,) = judge(folder).replicas
    assert (replica.explosion.cause, replica.explosion.step) == ("runaway", 20)
    assert replica.trace.temperature_K == (80.0, 650.5, 20000.0)
    assert replica.trace.potential_energy_eV[1] == -205.05154
    criteria = replace(
        Protocol().criteria, stored_energy_eV_per_atom=0, runaway_time_fs=5.0
    )
    (replica,) = judge(folder, protocol=Protocol(criteria=criteria)).replicas
    assert (replica.explosion.cause, replica.explosion.step) == ("runaway", 20)


def test_time_step_units_and_types_come_from_the_log(tmp_path):
    frames = made.script(made.oxide(), 3)
    made.give(frames, forces=False)
    folder = run(tmp_path, HEAD + ONE, frames, labels="type", units="real")
    result = judge(folder, without={"timestep_fs"})
    assert result.timestep_fs == 4.0
    assert result.replicas[0].formula == "Hf32O32"
    assert result.replicas[0].time_ps == 0.08
    with pytest.raises(UserError, match=r"got 1 fs and 4 fs .*--timestep-fs"):
        judge(folder)
    with pytest.raises(UserError, match=r"expected units real .*, got metal"):
        judge(folder, units="metal")
    (folder / "log.lammps").unlink()
    with pytest.raises(UserError, match="give --timestep-fs"):
        judge(
            folder, without={"timestep_fs"}, types={"1": "Hf", "2": "O"}, units="real"
        )
    with pytest.raises(UserError, match="--atom-types 1=ELEMENT 2=ELEMENT"):
        judge(folder)


BAD_COORDINATES = "ERROR on proc 0: Non-numeric atom coords - simulation unstable"


@pytest.mark.parametrize("thermo", ["", "thermo 0\n", "thermo 1000\n"])
@pytest.mark.parametrize("printed", [0, 2], ids=["no line", "first line"])
def test_an_error_comes_after_the_frames(tmp_path, thermo, printed):
    """Without `thermo` LAMMPS prints the first step alone, however long the run."""
    head = METAL.replace("thermo 10\n", thermo)
    lines = "".join(ONE.splitlines(keepends=True)[:printed])
    folder = run(tmp_path, head + lines + BAD_COORDINATES)
    for horizon in (None, 0.5):
        (replica,) = judge(
            folder,
            protocol=Protocol(horizon_ps=horizon or 10.0),
            given={"horizon_ps"} if horizon else (),
        ).replicas
        # frames of steps 0, 10 and 20 are there, that of step 30 is not
        event = replica.explosion
        assert (event.cause, event.step, event.time_ps) == ("nonfinite", 30, 0.03)


def test_an_error_after_the_last_of_few_frames(tmp_path):
    """The log goes on to step 20 after the only frames, at steps 0 and 4."""
    frames = made.script(made.oxide(), 2)
    folder = run(tmp_path, METAL + ONE + BAD_COORDINATES, frames, interval=4)
    (replica,) = judge(folder).replicas
    assert (replica.explosion.cause, replica.explosion.step) == ("nonfinite", 30)


def test_an_error_beyond_the_horizon(tmp_path):
    head = METAL.replace("thermo 10\n", "thermo 1000\n")
    lines = "".join(ONE.splitlines(keepends=True)[:2])
    frames = made.script(made.oxide(), 5)
    folder = run(tmp_path, head + lines + BAD_COORDINATES, frames)
    for horizon_ps in (0.02, 0.04):
        protocol = Protocol(horizon_ps=horizon_ps)
        (replica,) = judge(folder, protocol=protocol, given={"horizon_ps"}).replicas
        assert (replica.explosion, replica.censored_by) == (None, "horizon")


def test_columns_in_another_order(tmp_path):
    """A negative first column keeps its sign."""
    text = "   PotEng   Temp   Step\n  -206.5   80   0\n  -205.5   81   10\n"
    rows = read_log(log(tmp_path, METAL + text)).rows
    np.testing.assert_array_equal(rows[:, :3], [[0, 80, -206.5], [10, 81, -205.5]])


def test_a_printed_step_is_no_header(tmp_path):
    first, *rest = CUSTOM.splitlines(keepends=True)
    text = f"{first}Step 0 is next\n{''.join(rest)}"
    assert read_log(log(tmp_path, METAL + text)).rows[:, 0].tolist() == [0, 10, 20]


@pytest.mark.parametrize(
    "line",
    ["# Time Step", "# Step 1: heat", "pair_style allegro # Step", "Step NVT done"],
)
def test_words_about_steps_are_no_header(tmp_path, line):
    """What follows them are commands, and not lines of a table."""
    text = HEAD.replace("variable dt", f"{line}\nvariable dt") + ONE
    found = read_log(log(tmp_path, text))
    assert found.timestep_fs == 4
    assert found.types == {"1": "Hf", "2": "O"}
    assert found.rows[:, 0].tolist() == [0, 10, 20]


def test_a_printed_line_inside_a_table_is_no_command(tmp_path):
    first, *rest = ONE.splitlines(keepends=True)
    text = HEAD + first + rest[0] + "timestep 10 done\n" + "".join(rest[1:])
    found = read_log(log(tmp_path, text))
    assert found.timestep_fs == 4
    assert found.rows[:, 0].tolist() == [0, 10, 20]


def test_types_that_the_model_does_not_have(tmp_path):
    head = METAL.replace("Hf O #", "Hf NULL O #")
    assert read_log(log(tmp_path, head + ONE)).types == {"1": "Hf", "3": "O"}


def test_an_element_that_only_the_log_names(tmp_path):
    """One type without `dump_modify element` is C in the dump, whatever it is."""
    start = bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 2, 2)
    folder = run(tmp_path, METAL.replace("Hf O #", "Ar #") + ONE, made.script(start, 3))
    dump = folder / "dump.lammpstrj"
    dump.write_text(dump.read_text().replace(" Ar ", " C "))
    assert judge(folder).replicas[0].formula == "Ar32"
    log(folder, METAL.replace("Hf O #", "C #") + ONE)
    assert judge(folder).replicas[0].formula == "C32"
