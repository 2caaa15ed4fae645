"""Files and folders as people lay them out."""

import json
import shutil

import ase.io
import pytest

from nequip_decorr import UserError
from nequip_decorr.cli.main import main
from nequip_decorr.md import Protocol
from nequip_decorr.md.statistics.comparison import compare_runs
from nequip_decorr.md.trajectories.judge import judge_trajectories
from nequip_decorr.md.trajectories.layout import find_replicas, format_of
from nequip_decorr.md.trajectories.opening import Reading
from nequip_decorr.md.trajectories.settings import Request
from tests.support import trajectories as made


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(*paths):
    return [source.name for source in find_replicas(paths).sources]


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("dump.lammpstrj", "dump"),
        ("a.lammpstrj.gz", "dump"),
        ("dump.custom", "dump"),
        ("dump.xyz", "xyz"),
        ("dump.extxyz.gz", "xyz"),
        ("dump.traj", "traj"),
        ("md.traj", "traj"),
        ("md.extxyz", "xyz"),
        ("md.xyz.gz", "xyz"),
        ("XDATCAR", "xdatcar"),
        ("XDATCAR_2.gz", "xdatcar"),
        ("vasprun.xml", "vasprun"),
        ("vasprun.xml.gz", "vasprun"),
        ("log.lammps", None),
        ("data.lammps", None),
        ("in.lammps", None),
        ("restart.a", None),
        ("md.traj.gz", None),
        ("OUTCAR", None),
    ],
)
def test_formats_by_name(tmp_path, name, format_):
    assert format_of(tmp_path / name) == format_


def test_a_folder_of_replicas(tmp_path):
    touch(
        tmp_path,
        *("r10/dump.lammpstrj", "r10/log.lammps", "r10/start.extxyz"),
        *("r2/dump.lammpstrj", "notes/readme.txt"),
        *("deep/er/XDATCAR", "deep/er/vasprun.xml"),
    )
    found = find_replicas([tmp_path]).sources
    assert [s.name for s in found] == ["deep/er", "r2", "r10"]
    assert [s.path.name for s in found] == [
        "vasprun.xml",
        "dump.lammpstrj",
        "dump.lammpstrj",
    ]
    assert [s.log and s.log.name for s in found] == [None, None, "log.lammps"]


def test_results_in_the_folder_are_no_replicas(tmp_path):
    touch(tmp_path, "r1/md.traj", "out/result.json", "out/frames/a.extxyz")
    touch(tmp_path, "out/frames/b.extxyz")
    assert names(tmp_path) == ["r1"]


def test_runs_that_were_not_started(tmp_path):
    """An input or a log of a run, and no trajectory; other folders are no replicas."""
    touch(tmp_path, "r1/md.traj", "r2/in.lammps", "r10/log.lammps", "notes/readme.txt")
    touch(tmp_path, "deep/INCAR", "deep/er/XDATCAR")
    found = find_replicas([tmp_path])
    assert [source.name for source in found.sources] == ["deep/er", "r1"]
    assert found.missing == ("r10", "r2")
    assert found.names == ["deep/er", "r1", "r2", "r10"]
    folders = [tmp_path / name for name in ("r1", "r2", "r10")]
    assert find_replicas(folders).names == ["r1", "r2", "r10"]
    with pytest.raises(UserError, match=r"expected trajectories in .*r2 or "):
        find_replicas(folders[1:])


def test_files_and_single_folders(tmp_path):
    touch(tmp_path, "a.traj", "b.traj", "one/md.traj", "two/md.traj")
    assert names(tmp_path / "a.traj", tmp_path / "b.traj") == ["a", "b"]
    # files of one name are told apart by their folders
    assert names(tmp_path / "one/md.traj", tmp_path / "two/md.traj") == ["one", "two"]
    assert names(tmp_path / "two", tmp_path / "one") == ["one", "two"]


@pytest.mark.parametrize("name", ["start.extxyz", "start.xyz.gz"])
def test_a_start_structure_beside_the_replicas(tmp_path, name):
    touch(tmp_path, "r0/dump.lammpstrj", "r1/dump.lammpstrj")
    ase.io.write(tmp_path / name, made.oxide(), format="extxyz")
    assert names(tmp_path) == ["r0", "r1"]
    # a trajectory is one, whatever is below
    ase.io.write(tmp_path / name, [made.oxide()] * 2, format="extxyz")
    assert names(tmp_path) == [tmp_path.name]


@pytest.mark.parametrize(
    "files, expected",
    [
        (("x/dump.1", "x/dump.2"), ["dump.1", "dump.2"]),
        (("x/dump.1.gz", "x/dump.2.gz"), ["dump.1", "dump.2"]),
        (("x/XDATCAR.1", "y/XDATCAR.2"), ["x", "y"]),
        (("x/a.traj", "x/b.traj"), ["a", "b"]),
        (
            ("x/a.traj", "x/b.traj", "y/a.traj", "y/b.traj"),
            ["x/a.traj", "x/b.traj", "y/a.traj", "y/b.traj"],
        ),
    ],
)
def test_files_are_named_by_what_tells_them_apart(tmp_path, files, expected):
    touch(tmp_path, *files)
    assert names(*(tmp_path / name for name in files)) == expected


def test_a_single_frame_alone_is_a_replica(tmp_path):
    ase.io.write(tmp_path / "md.extxyz", made.oxide())
    touch(tmp_path, "notes/readme.txt")
    assert names(tmp_path) == [tmp_path.name]


def test_the_log_of_a_file(tmp_path):
    touch(tmp_path, "a.lammpstrj", "log.lammps")
    (source,) = find_replicas([tmp_path / "a.lammpstrj"]).sources
    assert source.log == tmp_path / "log.lammps"
    # of which of them it is the log is not known
    touch(tmp_path, "b.lammpstrj")
    (source,) = find_replicas([tmp_path / "a.lammpstrj"]).sources
    assert source.log is None


def test_what_is_refused(tmp_path):
    touch(tmp_path, "many/a.traj", "many/b.traj", "empty/readme.txt", "x/y/md.traj")
    touch(tmp_path, "z/y/md.traj")
    for path, message in {
        "many": "expected one trajectory in .*, got 2: a.traj, b.traj; name the files",
        "empty": "expected trajectories in .*empty or its folders, got none named",
        "none.traj": "none.traj, which does not exist",
        "empty/readme.txt": "whose name shows its format",
    }.items():
        with pytest.raises(UserError, match=message):
            find_replicas([tmp_path / path])
    twice = [tmp_path / "many" / "a.traj"] * 2
    with pytest.raises(UserError, match="different names, got 'many'"):
        find_replicas(twice)
    with pytest.raises(UserError, match="different names, got 'y'"):
        find_replicas([tmp_path / "x", tmp_path / "z"])


# --- what the replicas are ---


def judge(paths, out, *, n_structures=None, **given):
    """Judge at 300 K and 1 fs; the result and what was said."""
    fields = {"temperatures_K": (300.0,), "timestep_fs": 1.0} | given
    request = Request(
        paths=tuple(paths),
        reading=Reading(),
        protocol=Protocol(**fields),
        given=frozenset(fields),
        n_structures=n_structures,
    )
    said = []
    return judge_trajectories(request, out, machine={}, warn=said.append), said


@pytest.fixture
def runs(tmp_path):
    """Four replicas of two structures."""
    for number in range(4):
        frames = made.script(made.oxide(), 3, seed=number // 2)
        (tmp_path / f"runs/r{number}").mkdir(parents=True)
        made.write_dump(tmp_path / f"runs/r{number}/dump.lammpstrj", frames)
    return tmp_path / "runs"


def test_equal_first_frames_are_one_structure(runs):
    result, said = judge([runs], runs.parent / "out")
    found = [(r.name, r.structure, r.seed) for r in result.replicas]
    assert found == [("r0", 0, 0), ("r1", 0, 1), ("r2", 1, 0), ("r3", 1, 1)]
    assert said == []
    assert result.replicas[1].key == ("r1", 300.0, 0)


def test_first_frames_after_an_equilibration(runs):
    for number in range(4):
        path = runs / f"r{number}" / "dump.lammpstrj"
        made.write_dump(path, made.script(made.oxide(), 3, seed=10 + number))
    result, said = judge([runs], runs.parent / "out")
    assert [r.structure for r in result.replicas] == [0, 1, 2, 3]
    assert "give --structures N" in said[0]
    result, said = judge([runs], runs.parent / "out", n_structures=2)
    assert [r.structure for r in result.replicas] == [0, 0, 1, 1]
    assert said == []
    with pytest.raises(UserError, match="divides the 4 replicas, got 3"):
        judge([runs], runs.parent / "out", n_structures=3)


def test_a_folder_with_something_else_is_not_touched(runs):
    out = runs.parent / "mine"
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="other files in it"):
        judge([runs], out)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_time_steps_that_differ(runs):
    text = "units metal\ntimestep {}\n   Step Temp PotEng TotEng\n 0 300 -1 -1\n"
    for number in range(4):
        step = 0.001 if number < 3 else 0.002
        (runs / f"r{number}" / "log.lammps").write_text(text.format(step))
    with pytest.raises(
        UserError, match="one time step of all replicas, got 1 fs and 2"
    ):
        judge([runs], runs.parent / "out")


EMPTY = {
    "dump.lammpstrj": "",
    "md.extxyz": "",
    "md.traj": "",
    "XDATCAR": "",
    "vasprun.xml": '<?xml version="1.0"?>\n<modeling>\n <generator>\n',
}


@pytest.mark.parametrize("name", EMPTY)
def test_replicas_without_frames_are_left_out(runs, name):
    """Two of four; the others belong to the same structures as with all of them."""
    for number in (0, 3):
        (runs / f"r{number}" / "dump.lammpstrj").unlink()
        (runs / f"r{number}" / name).write_text(EMPTY[name])
    result, said = judge([runs], runs.parent / "out", n_structures=2)
    assert [(r.name, r.structure) for r in result.replicas] == [("r1", 0), ("r2", 1)]
    assert said == ["2 of 4 replicas have no frames and are left out: r0, r3"]
    assert result.source["notes"] == said
    assert not result.complete


def test_runs_without_a_file_are_left_out_as_well(runs):
    (runs / "r1" / "dump.lammpstrj").rename(runs / "r1" / "in.lammps")
    result, said = judge([runs], runs.parent / "out", n_structures=2)
    assert [r.structure for r in result.replicas] == [0, 1, 1]
    assert said == ["1 of 4 replicas has no frames and is left out: r1"]


def test_no_frames_at_all(runs):
    for number in range(4):
        (runs / f"r{number}" / "dump.lammpstrj").write_text("ITEM: TIMESTEP\n0\n")
    with pytest.raises(UserError, match=r"expected frames in .*r0/dump.* no complete"):
        judge([runs], runs.parent / "out")
    assert not (runs.parent / "out").exists()


def test_a_comparison_pairs_what_has_frames_in_both(runs):
    """By name: which replicas the other model lacks makes no difference."""
    whole, _ = judge([runs], runs.parent / "whole", horizon_ps=0.02)
    for number in (0, 2):
        (runs / f"r{number}" / "dump.lammpstrj").write_text("")
    partial, _ = judge([runs], runs.parent / "partial", horizon_ps=0.02)
    found = compare_runs(whole, partial, ("whole", "partial"))
    assert (found.n_pairs, found.unpaired) == (2, (2, 0))
    assert found.notes == (
        "2 replicas of whole without a partner: not used",
        "partial is not complete: some of its runs had no frames",
    )
    effect = found.kinds["unphysical"].overall
    assert (effect.n_pairs, effect.n_structures) == (2, 2)


# --- runs that `md --write-lammps` has written ---


def written(runs, **changes):
    protocol = Protocol(temperatures_K=(250.0, 350.0), horizon_ps=0.02)
    plans = [
        {
            "index": number,
            "folder": f"r{number}",
            "structure": number // 2,
            "structure_name": f"start#{number // 2}",
            "structure_sha256": "ab" * 32,
            "temperature_K": (250.0, 350.0)[number % 2],
            "seed": 7,
        }
        for number in range(4)
    ]
    document = {
        "schema": "nequip_decorr.lammps/1",
        "model": {
            "path": "m.nequip.pt2",
            "sha256": "cd" * 32,
            "pair_style": "allegro",
            "species": ["Hf", "O"],
        },
        "protocol": protocol.to_dict(),
        "replicas": plans,
    }
    (runs / "replicas.json").write_text(json.dumps(document | changes))


def judge_written(runs, out, **given):
    request = Request(paths=(runs,), protocol=Protocol(**given), given=frozenset(given))
    said = []
    return judge_trajectories(request, out, machine={}, warn=said.append), said


def test_replicas_json_says_how_they_were_run(runs):
    written(runs)
    result, said = judge_written(runs, runs.parent / "out")
    assert [r.key for r in result.replicas] == [
        (0, 250.0, 7),
        (0, 350.0, 7),
        (1, 250.0, 7),
        (1, 350.0, 7),
    ]
    assert result.horizon_ps == 0.02
    assert result.model["sha256"] == "cd" * 32
    assert {r.structure_sha256 for r in result.replicas} == {"ab" * 32}
    assert (said, result.complete) == ([], True)
    with pytest.raises(UserError, match="temperatures_K as well; leave them out"):
        judge_written(runs, runs.parent / "out", temperatures_K=(300.0,))


def test_the_preset_of_a_file_says_nothing_of_how_they_were_run(runs):
    written(runs)
    path = runs.parent / "limits.yaml"
    path.write_text("preset: molecule\ncriteria: {fragment_ratio: null}\n")
    out = str(runs.parent / "out")
    assert main(["judge", str(runs), "--protocol", str(path), "--out", out]) == 0


def test_a_ramp_is_not_made_faster_afterwards(runs):
    """Its temperatures are those of the duration with which it was written."""
    ramp = Protocol(
        ensemble="ramp", ramp_end_temperature_K=3000.0, horizon_ps=0.02,
        temperatures_K=(250.0, 350.0),
    )  # fmt: skip
    written(runs, protocol=ramp.to_dict())
    judge_written(runs, runs.parent / "out", horizon_ps=0.02)
    with pytest.raises(UserError, match=r"duration of the ramp, 0\.02 ps, got 0\.01"):
        judge_written(runs, runs.parent / "out", horizon_ps=0.01)


def test_replicas_that_have_not_run_yet(runs):
    written(runs)
    shutil.rmtree(runs / "r2")
    (runs / "r1" / "dump.lammpstrj").write_text("")
    result, said = judge_written(runs, runs.parent / "out")
    assert [r.key for r in result.replicas] == [(0, 250.0, 7), (1, 350.0, 7)]
    assert not result.complete
    assert said == ["2 of 4 replicas have no frames and are left out: r1, r2"]
    written(runs, schema="nequip_decorr.lammps/9")
    with pytest.raises(UserError, match=r"with schema 'nequip_decorr\.lammps/1'"):
        judge_written(runs, runs.parent / "out")
