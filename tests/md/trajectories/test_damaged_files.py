"""Files that were cut off or damaged: what is whole in them is judged, or refused."""

import zlib

import pytest

from nequip_decorr import UserError
from nequip_decorr.md import Protocol
from nequip_decorr.md.trajectories.lammps_log import read_log
from tests.md.trajectories.test_formats import judge
from tests.support import trajectories as made


@pytest.fixture
def frames():
    return made.script(made.oxide(), 6)


@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_a_traj_that_was_cut_off(tmp_path, frames, share):
    made.approach(frames, 1, 1.4)
    path = made.write_ase(tmp_path / "md.traj", frames, "traj")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    warned = []
    (replica,) = judge(path, interval_steps=10, warned=warned).replicas
    assert (replica.unphysical.cause, replica.unphysical.step) == ("overlap", 10)
    assert 0.01 <= replica.time_ps < 0.05
    number = round(replica.time_ps / 0.01) + 2
    assert warned == [
        f"frame {number} of {path} is incomplete and is skipped (was the run killed?)"
    ]


@pytest.mark.parametrize("cut", range(1, 9))
def test_an_extxyz_that_was_cut_off_in_a_number(tmp_path, frames, cut):
    """What is left of it is a number as well, but another one."""
    path = made.write_ase(tmp_path / "md.extxyz", frames, "extxyz")
    path.write_text(path.read_text()[:-cut])
    warned = []
    (replica,) = judge(path, interval_steps=10, warned=warned).replicas
    assert (replica.unphysical, replica.explosion) == (None, None)
    assert replica.time_ps == 0.04
    assert f"frame 6 of {path} is incomplete" in warned[0]


@pytest.mark.parametrize("name", ["dump.lammpstrj.gz", "vasprun.xml.gz", "md.xyz.gz"])
def test_a_damaged_gzip_file(tmp_path, frames, name):
    plain = tmp_path / name.removesuffix(".gz")
    if name.startswith("dump"):
        made.write_dump(plain, frames)
    elif name.startswith("vasprun"):
        made.write_vasprun(plain, frames)
    else:
        made.write_ase(plain, frames, "extxyz")
    path = damaged(tmp_path / name, plain.read_bytes())
    plain.unlink()
    with pytest.raises(UserError, match=r"^expected .* got .*invalid") as error:
        judge(
            path,
            protocol=Protocol(criteria=made.no_leaps()),
            interval_steps=10,
            warned=[],
        )
    assert "\n" not in str(error.value)


def test_a_damaged_log(tmp_path):
    path = damaged(tmp_path / "log.lammps.gz", b"units metal\n" * 9)
    with pytest.raises(UserError, match="expected a log of LAMMPS that can be read"):
        read_log(path)


def test_an_xdatcar_without_a_title(tmp_path, frames):
    path = made.write_xdatcar(tmp_path / "XDATCAR", frames)
    _, rest = path.read_text().split("\n", 1)
    # again before each frame, as where the cell changes
    header, *blocks = rest.split("Direct")
    text = "".join(f" \n{header}Direct{block}" for block in blocks)
    for content in (f"\n{rest}", f"{text}\n\n"):
        path.write_text(content)
        (replica,) = judge(path, interval_steps=10).replicas
        assert (replica.formula, replica.time_ps) == ("Hf32O32", 0.05)


@pytest.mark.parametrize("counts", ["0 0", "32 0", "-32 32"])
def test_an_xdatcar_without_atoms(tmp_path, frames, counts):
    path = made.write_xdatcar(tmp_path / "XDATCAR", frames)
    lines = path.read_text().splitlines(keepends=True)
    assert lines[6].split() == ["32", "32"]
    lines[6] = f"{counts}\n"
    path.write_text("".join(lines))
    with pytest.raises(UserError, match=r"^expected an XDATCAR") as error:
        judge(path, interval_steps=10)
    assert "\n" not in str(error.value)


def damaged(path, content):
    """The first half compressed, and then a block of an unknown kind."""
    packer = zlib.compressobj(wbits=31)
    half = packer.compress(content[: len(content) // 2])
    path.write_bytes(half + packer.flush(zlib.Z_FULL_FLUSH) + b"\xff" * 8)
    return path
