"""Paths as users give them: what an `@` means, and what can be written."""

import subprocess
import sys

import ase.io
import pytest
from ase.build import bulk

from nequip_decorr.cli.main import main
from nequip_decorr.errors import UserError
from nequip_decorr.inspection.inputs import read_frames
from nequip_decorr.md.structures import read_structures
from nequip_decorr.paths import (
    check_file,
    check_output_file,
    split_index,
    user_path,
)


def frames(path, number=3):
    """A file of copper, each frame larger than the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ase.io.write(path, [bulk("Cu") * (n + 1, 1, 1) for n in range(number)])
    return path


def sizes(structures):
    return [len(atoms) for atoms in structures]


@pytest.mark.parametrize("read", [read_structures, lambda p: list(read_frames(p))])
@pytest.mark.parametrize(
    "name",
    [
        "T@1200K/start.extxyz",
        "T@1200K/run@2/my start.extxyz",
        "start@300K.extxyz",
        "start@1.extxyz",
        "größe/ß é 水.extxyz",
    ],
)
def test_only_the_last_part_of_a_path_picks(tmp_path, monkeypatch, read, name):
    path = frames(tmp_path / name)
    assert sizes(read(path)) == [1, 2, 3]
    assert sizes(read(str(path))) == [1, 2, 3]
    assert sizes(read(f"{path}@1:")) == [2, 3]
    assert sizes(read(f"{path}@-1")) == [3]
    monkeypatch.chdir(tmp_path)
    assert sizes(read(f"{name}@::2")) == [1, 3]


def test_a_file_to_read_is_a_file(tmp_path):
    path = frames(tmp_path / "cu.extxyz")
    assert check_file(str(path), "a model") == path
    for other, found in (
        (tmp_path, "which is a folder"),
        (tmp_path / "none", "which does not exist"),
    ):
        with pytest.raises(UserError) as error:
            check_file(other, "a model")
        assert str(error.value) == (
            f"expected a model, got {other}, {found}; give the file's path"
        )


def test_a_link_is_the_file_it_leads_to(tmp_path):
    (tmp_path / "link.extxyz").symlink_to(frames(tmp_path / "data" / "cu.extxyz"))
    (structure,) = read_structures(tmp_path / "link.extxyz@0")
    assert structure.info["name"] == "link.extxyz@0#0"


def test_what_is_not_there_is_named_in_full(tmp_path):
    for path in (tmp_path / "T@1200K" / "none.extxyz", tmp_path / "none.extxyz@0"):
        assert split_index(path) == (path, None)
        for read in (read_structures, read_frames):
            with pytest.raises(UserError, match=f"got {path}"):
                read(path)


def test_an_index_that_is_none(tmp_path):
    path = frames(tmp_path / "cu.extxyz")
    with pytest.raises(UserError, match=r"cu\.extxyz@first"):
        read_structures(f"{path}@first")
    with pytest.raises(UserError, match=r"cu\.extxyz@first"):
        list(read_frames(f"{path}@first"))


def test_what_can_be_written(tmp_path):
    assert check_output_file(tmp_path / "new.json") == tmp_path / "new.json"
    (tmp_path / "old.json").write_text("old")
    check_output_file(tmp_path / "old.json")
    check_output_file("/dev/null")
    assert (tmp_path / "old.json").read_text() == "old"
    assert not (tmp_path / "new.json").exists()


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="got the folder"):
        check_output_file(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        check_output_file(tmp_path / "none" / "new.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no such folder"):
        check_output_file(tmp_path / "file" / "new.json")


def test_no_permission(tmp_path):
    """As an ordinary user, whom permissions bind."""
    (tmp_path / "old.json").write_text("old")
    (tmp_path / "old.json").chmod(0o444)
    tmp_path.chmod(0o555)
    code = (
        "import os\n"
        "from nequip_decorr.errors import UserError\n"
        "from nequip_decorr.paths import check_output_file\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "for path in ('new.json', 'old.json'):\n"
        "    try: check_output_file(path)\n"
        "    except UserError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.count("give another path\n") == 2, done.stderr


@pytest.mark.parametrize("option", ["--json=~/none/x.json", "--plot=~/none/x.png"])
def test_home_is_found_where_shells_leave_it(tmp_path, monkeypatch, capsys, option):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["inspect", "none.ckpt", "none.extxyz", option]) == 2
    assert f"got {tmp_path / 'none'}: no such folder" in capsys.readouterr().err


def test_a_home_that_is_not_there():
    with pytest.raises(UserError, match="a home folder for ~nobody-at-all/run"):
        user_path("~nobody-at-all/run")


@pytest.mark.parametrize("name", ["T@1200K/start.extxyz", "start@1.extxyz"])
def test_a_file_of_the_shorter_name_is_another(tmp_path, name):
    path = frames(tmp_path / name)
    (tmp_path / name.partition("@")[0]).write_text("notes")
    assert split_index(path) == (path, None)
    assert sizes(read_structures(path)) == [1, 2, 3]
