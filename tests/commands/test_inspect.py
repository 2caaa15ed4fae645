"""``nequip-decorr inspect`` on files of ``nequip-train`` and ``nequip-package``.

The reference is numpy on the features that the model itself returns, collected frame by
frame with forces on, as NequIP runs it.
"""

from __future__ import annotations

import json
import os
import pty
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from numpy.typing import NDArray

from nequip_decorr.cli.main import main
from nequip_decorr.inspection.inputs import load_feature_model
from nequip_decorr.inspection.measure import inspect_file, inspect_model
from nequip_decorr.inspection.result import Inspection, LayerReport, from_json, reading
from tests.support.commands import DATA

pytestmark = pytest.mark.slow

# float32 features of other batches and without forces differ by rounding
FLOAT32 = {"rel": 1e-4, "abs": 1e-5}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "frames.extxyz"
    ase.io.write(path, ase.io.read(DATA, ":12"))
    return path


@pytest.fixture(scope="module")
def inspected(checkpoint: Path, data: Path) -> Inspection:
    return inspect_file(checkpoint, data)


@pytest.fixture(scope="module")
def features(checkpoint: Path, data: Path) -> NDArray[np.float64]:
    """Edge features of the model as NequIP runs it, (edges, channels of all layers)."""
    from nequip.data import AtomicDataDict, from_ase
    from nequip.data.transforms import (
        ChemicalSpeciesToAtomTypeMapper,
        NeighborListTransform,
    )
    from nequip.model.saved_models.load_utils import load_saved_model

    model = load_saved_model(checkpoint).eval()
    types = ChemicalSpeciesToAtomTypeMapper(model_type_names=["Hf", "O"])
    neighbors = NeighborListTransform(r_max=3.5)
    parts = []
    for atoms in ase.io.iread(data):
        output = model(neighbors(types(from_ase(atoms))))
        assert AtomicDataDict.FORCE_KEY in output
        parts.append(output["edge_features"].detach().double().numpy())
    return np.concatenate(parts)


def test_every_number_is_numpys(
    inspected: Inspection, features: NDArray[np.float64]
) -> None:
    assert [each.name for each in inspected.layers] == ["0 (two-body)", "1"]
    assert inspected.frames == 12
    assert inspected.row_kind == "edges"
    assert inspected.rows == len(features)
    for index, report in enumerate(inspected.layers):
        x = features[:, 8 * index : 8 * (index + 1)]
        r = np.corrcoef(x, rowvar=False)
        pairs = [r[i, j] for i in range(8) for j in range(i)]
        assert np.array(report.correlation) == pytest.approx(r, **FLOAT32)
        assert report.channels == 8
        assert report.dead_channels == ()
        assert report.mean_abs == pytest.approx(np.mean(np.abs(pairs)), **FLOAT32)
        assert report.rms == pytest.approx(
            np.sqrt(np.mean(np.square(pairs))), **FLOAT32
        )
        assert report.maximum == pytest.approx(np.max(np.abs(pairs)), **FLOAT32)
        singular = np.linalg.svd((x - x.mean(0)) / x.std(0), compute_uv=False)
        p = singular / singular.sum()
        rank = np.exp(-(p * np.log(p)).sum())
        assert report.effective_rank == pytest.approx(rank, rel=1e-4)
        assert report.eigenvalues == pytest.approx(singular**2 / len(x), **FLOAT32)
        ratio = (singular**2).sum() ** 2 / (singular**4).sum()
        assert report.participation_ratio == pytest.approx(ratio, **FLOAT32)
        n = len(x)
        debiased = 1 - (1 - np.mean(np.square(pairs))) * (n - 1) / (n - 2)
        assert report.mean_square_debiased == pytest.approx(debiased, **FLOAT32)


def assert_alike(one: Inspection, other: Inspection) -> None:
    assert (one.field, one.frames, one.rows) == (other.field, other.frames, other.rows)
    for a, b in zip(one.layers, other.layers, strict=True):
        assert a.name == b.name
        assert np.array(a.correlation) == pytest.approx(
            np.array(b.correlation), **FLOAT32
        )
        assert a.mean_abs == pytest.approx(b.mean_abs, **FLOAT32)
        assert a.effective_rank == pytest.approx(b.effective_rank, rel=1e-4)


def test_a_package_gives_the_checkpoints_numbers(
    inspected: Inspection, package: Path, data: Path
) -> None:
    packaged = inspect_file(package, data)
    assert packaged.model == str(package)
    assert_alike(packaged, inspected)


@pytest.mark.parametrize("batch_size", [1, 100])
def test_the_batch_size_changes_nothing(
    inspected: Inspection, checkpoint: Path, data: Path, batch_size: int
) -> None:
    told: list[int] = []
    again = inspect_file(checkpoint, data, batch_size=batch_size, on_frames=told.append)
    assert_alike(again, inspected)
    assert told == ([1] * 12 if batch_size == 1 else [12])


def test_only_the_first_frames_are_read(checkpoint: Path, data: Path) -> None:
    few = inspect_file(checkpoint, data, max_frames=3)
    model = load_feature_model(checkpoint)
    assert few.layers == inspect_model(model, ase.io.read(data, ":3")).layers
    assert few.frames == 3


# --- the command ----------------------------------------------------------------------


def test_the_command_prints_the_table_and_what_it_means(
    checkpoint: Path,
    data: Path,
    inspected: Inspection,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["inspect", str(checkpoint), str(data)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""  # no progress bar where nobody watches
    rows = [line.split("│") for line in shown.out.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in row[1:-1]] for row in rows]
    assert cells == [table_row(each) for each in inspected.layers]
    flat = " ".join(shown.out.split())
    assert f"over {inspected.rows} edges in 12 frames" in flat
    assert flat.endswith(" ".join(reading(inspected).split()))


def table_row(report: LayerReport) -> list[str]:
    return [
        report.name,
        f"{report.mean_abs:.3f}",
        f"{report.rms:.3f}",
        f"{report.effective_rank:.1f} of {report.channels}",
        str(len(report.dead_channels)),
    ]


def test_json_on_stdout_is_json_alone(
    checkpoint: Path,
    data: Path,
    inspected: Inspection,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["inspect", str(checkpoint), str(data), "--json"]) == 0
    assert from_json(capsys.readouterr().out) == inspected


def test_json_and_figure_go_to_files_beside_the_table(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers, figure = tmp_path / "out.json", tmp_path / "out.png"
    options = ["--json", str(numbers), "--plot", str(figure), "--max-frames", "4"]
    assert main(["inspect", str(checkpoint), str(data), *options]) == 0
    assert json.loads(numbers.read_text())["frames"] == 4
    assert figure.read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "0 (two-body)" in out
    assert "few or similar frames" in " ".join(out.split())
    assert [str(numbers) in out, str(figure) in out] == [True, True]


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_the_numbers_are_there_when_a_file_cannot_be_written(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
) -> None:
    full = tmp_path / "full.png"
    full.symlink_to("/dev/full")
    options = [option, str(full), "--max-frames", "2"]
    assert main(["inspect", str(checkpoint), str(data), *options]) == 2
    shown = capsys.readouterr()
    assert "0 (two-body)" in shown.out
    assert "Written" not in shown.out
    assert shown.err == (
        f"nequip-decorr inspect: cannot write {full}: No space left on device; give "
        f"another path\n"
    )


def test_a_bar_is_drawn_on_a_terminal(
    checkpoint: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, follower = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert main(["inspect", str(checkpoint), str(data), "--max-frames", "12"]) == 0
        drawn = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert "0/12" in drawn


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def test_bad_input_gets_one_line(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silicon, lone, nowhere, nothing = (tmp_path / f"{i}.extxyz" for i in range(4))
    dimer = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2]])
    ase.io.write(silicon, [ase.io.read(data, "0"), dimer])
    ase.io.write(lone, Atoms("O", positions=[[0, 0, 0]]))
    ase.io.write(nowhere, Atoms("O2", positions=[[0, 0, 0], [0, 0, np.nan]]))
    ase.io.write(nothing, Atoms())
    no_cell = tmp_path / "no_cell.traj"
    ase.io.write(no_cell, Atoms("O2", positions=[[0, 0, 0], [0, 0, 1.2]], pbc=True))
    model, frames = str(checkpoint), str(data)
    other_ckpt = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}}, other_ckpt)
    cases = {
        (str(tmp_path / "no.ckpt"), frames): "no.ckpt, which does not exist",
        (str(tmp_path), frames): f"got {tmp_path}, which is a folder",
        (model, str(tmp_path)): "a data file that ase",
        (write(tmp_path / "bad.ckpt", b"x\n" * 99), frames): "that NequIP can load",
        (write(tmp_path / "bad.nequip.zip", b"x"), frames): "that NequIP can load",
        (str(other_ckpt), frames): "that NequIP can load",
        (write(tmp_path / "m.nequip.pt2", b"x"), frames): "the compiled model",
        (write(tmp_path / "m.nequip.pth", b"x"), frames): "the compiled model",
        (model, str(tmp_path / "no.xyz")): "no.xyz, which does not exist",
        (model, write(tmp_path / "bad.xyz", b"3\n\nO 0 0")): "a data file that ase",
        (model, write(tmp_path / "what", b"?")): "a data file that ase reads",
        (model, write(tmp_path / "empty.xyz", b"")): "Empty file",
        (model, f"{frames}@900:"): "at least one frame in",
        (model, str(silicon)): "got ['Si'] in frame 1 (counted from 0)",
        (model, str(lone)): "at least two edges to correlate over, got 0 in 1 frames",
        (model, str(nowhere)): "expected atoms at finite positions",
        (model, str(nothing)): "expected atoms at finite positions",
        (model, str(no_cell)): "expected a cell vector for each periodic direction",
        (model, frames, "--device", "abacus"): "got 'abacus'",
        (model, frames, "--batch-size", "0"): "batch size of at least 1, got 0",
        (model, frames, "--max-frames", "0"): "at least 1 frame to read, got 0",
        (model, frames, "--features", "nothing"): "got 'nothing'",
        (model, frames, "--layer-dim", "5"): "got 5",
        (model, frames, "--plot", "f.gif"): ".png, .svg, .pdf, got f.gif",
    }
    for arguments, said in cases.items():
        assert main(["inspect", *arguments]) == 2, arguments
        shown = capsys.readouterr()
        assert shown.out == ""
        (line,) = shown.err.splitlines()
        assert line.startswith("nequip-decorr inspect: expected "), line
        assert said in line, line
