"""The inspection's result, its reading, and its figure; on made-up correlations."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nequip_decorr.errors import UserError
from nequip_decorr.inspection.figure import cluster_order, correlation_figure
from nequip_decorr.inspection.result import (
    Inspection,
    LayerReport,
    from_json,
    reading,
    to_json,
)
from nequip_decorr.plotting import check_figure_path, save_figure

Matrix = NDArray[np.float64]


def layer(matrix: Matrix, name: str = "0") -> LayerReport:
    """A report of a correlation matrix, by the definitions, in numpy."""
    channels = len(matrix)
    dead = tuple(int(i) for i in np.flatnonzero(np.diagonal(matrix) == 0))
    off = matrix[~np.eye(channels, dtype=bool)]
    eigenvalues = np.linalg.eigvalsh(matrix)[::-1]
    singular = np.sqrt(eigenvalues.clip(min=0))
    p = singular[singular > 0] / singular.sum()
    return LayerReport(
        name=name,
        channels=channels,
        mean_abs=float(np.abs(off).mean()),
        rms=float(np.sqrt((off**2).mean())),
        maximum=float(np.abs(off).max()),
        mean_square_debiased=float((off**2).mean()),
        effective_rank=float(np.exp(-(p * np.log(p)).sum())) if p.size else 0.0,
        participation_ratio=1.0,
        dead_channels=dead,
        eigenvalues=tuple(map(float, eigenvalues)),
        correlation=tuple(tuple(map(float, row)) for row in matrix),
    )


def inspection(*matrices: Matrix, frames: int = 50, rows: int = 5000) -> Inspection:
    layers = tuple(layer(matrix, str(i)) for i, matrix in enumerate(matrices))
    return Inspection("m.ckpt", "d.xyz", "f", frames, rows, "edges", layers)


def groups_of(sizes: list[int], rho: float) -> Matrix:
    """Channels in groups: rho (of either sign) within a group, 0 between groups."""
    matrix = np.zeros((sum(sizes), sum(sizes)))
    start = 0
    for size in sizes:
        signs = np.where(np.arange(size) % 2, -1.0, 1.0)
        matrix[start : start + size, start : start + size] = rho * np.outer(
            signs, signs
        )
        start += size
    np.fill_diagonal(matrix, 1)
    return matrix


def killed(matrix: Matrix, *channels: int) -> Matrix:
    matrix = matrix.copy()
    matrix[list(channels), :] = 0
    matrix[:, list(channels)] = 0
    return matrix


# --- the result -----------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_json_gives_back_the_same_result(channels: int, layers: int, seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(layers, channels + 1, 9))
    matrices = [np.corrcoef(each)[:-1, :-1].reshape(channels, -1) for each in features]
    wide = [np.pad(matrix, (0, 1)) for matrix in matrices]  # the last channel is dead
    before = inspection(*wide)
    assert from_json(to_json(before)) == before


def test_json_is_plain_and_names_its_schema() -> None:
    data = json.loads(to_json(inspection(groups_of([2, 2], 0.5))))
    assert data["schema"] == "nequip_decorr.inspection.result/1"
    assert data["layers"][0]["correlation"][0] == [1.0, -0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "expected the JSON of `nequip-decorr inspect --json`"),
        ("[]", "got None"),
        ('{"schema": "nequip_decorr.md/1"}', "got 'nequip_decorr.md/1'"),
    ],
)
def test_other_json_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match="expected") as caught:
        from_json(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the reading ----------------------------------------------------------------------


def test_the_reading_speaks_of_the_most_redundant_layer() -> None:
    copies = groups_of([4, 4], 1.0)  # two groups of copies: rank 2
    text = reading(inspection(np.eye(8), copies, np.eye(8)))
    assert text.startswith("Most redundant is layer 1: its 8 channels vary like 2.0 ")
    assert "|ρ| = 0.43 on average" in text  # 3 of 7 partners are copies
    assert "These numbers do not show" in text
    assert "Little data" not in text
    assert "dead" not in text


def test_uncorrelated_channels_leave_little_to_lower() -> None:
    text = reading(inspection(np.eye(8)))
    assert "like 8.0 uncorrelated ones" in text
    assert "little to lower" in text
    assert "These numbers do not show" not in text


@pytest.mark.parametrize(("frames", "rows"), [(9, 10_000), (50, 159)])
def test_few_frames_or_edges_are_said(frames: int, rows: int) -> None:
    text = reading(inspection(np.eye(8), frames=frames, rows=rows))
    assert f"Little data ({frames} frames, {rows} edges)" in text


def test_dead_channels_are_counted_over_the_layers() -> None:
    matrix = groups_of([2, 2, 2], 0.5)
    text = reading(inspection(killed(matrix, 1), killed(matrix, 0, 3)))
    assert "(dead): 3." in text


@pytest.mark.parametrize("alive", [[], [1]])
def test_a_layer_without_two_live_channels_has_no_rank_to_speak_of(
    alive: list[int],
) -> None:
    dead = killed(np.eye(4), *({0, 1, 2, 3} - set(alive)))
    text = reading(inspection(np.eye(4), dead))
    assert text.startswith("In layer 1 no two channels vary")
    assert "uncorrelated" not in text


# --- the order of channels ------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_channels_of_one_group_end_up_side_by_side(seed: int) -> None:
    sizes = [5, 3, 4, 2]
    group = np.repeat(np.arange(4), sizes)
    shuffle = np.random.default_rng(seed).permutation(len(group))
    matrix = groups_of(sizes, 0.8)[np.ix_(shuffle, shuffle)]
    ordered = group[shuffle][cluster_order(matrix)]
    assert np.count_nonzero(np.diff(ordered)) == len(sizes) - 1


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.data())
def test_an_order_is_a_permutation_with_the_dead_last(
    channels: int, seed: int, data: st.DataObject
) -> None:
    dead = data.draw(st.sets(st.integers(0, channels - 1)))
    features = np.random.default_rng(seed).normal(size=(channels, 20))
    matrix = killed(np.corrcoef(features).reshape(channels, channels), *dead)
    order = cluster_order(matrix).tolist()
    assert sorted(order) == list(range(channels))
    assert set(order[channels - len(dead) :]) == dead


def test_exact_copies_have_an_order() -> None:
    assert sorted(cluster_order(groups_of([6], 1 + 1e-12))) == list(range(6))


# --- the figure -----------------------------------------------------------------------


def test_a_map_shows_each_pair_once_and_the_dead_as_gaps() -> None:
    matrix = killed(groups_of([3, 2], 0.7), 4)
    figure = correlation_figure({"model": inspection(matrix)})
    (image,) = figure.axes[0].get_images()
    shown = np.ma.filled(image.get_array(), np.nan)
    assert np.isnan(shown[4]).all()
    assert np.isnan(shown[:, 4]).all()
    live = shown[:4, :4]
    assert sorted(live.ravel()) == pytest.approx(sorted(np.abs(matrix[:4, :4]).ravel()))
    assert image.get_clim() == (0, 1)
    assert "mean |ρ|" in figure.axes[0].get_title()
    assert ", 1 dead" in figure.axes[0].get_title()


def test_models_are_rows_layers_are_columns_and_spectra_are_overlaid() -> None:
    wide = inspection(np.eye(6), groups_of([6], 0.9), np.eye(6))
    narrow = inspection(groups_of([4], 0.5), np.eye(4))
    figure = correlation_figure({"wide": wide, "narrow": narrow})
    grid = figure.axes[:9]
    maps = [len(axis.get_images()) for axis in grid]
    assert maps == [1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert [grid[0].get_ylabel(), grid[3].get_ylabel()] == ["wide", "narrow"]
    lines = {line.get_label(): line for line in grid[7].get_lines()}
    assert lines["wide"].get_ydata() == pytest.approx([5.5] + [0.1] * 5)
    assert lines["narrow"].get_ydata() == pytest.approx([1.0] * 4)
    assert [line.get_label() for line in grid[8].get_lines()] == [
        "wide",
        "uncorrelated",
    ]
    low, high = grid[6].get_ylim()
    assert low < 0.1
    assert high > 5.5
    assert grid[8].get_ylim() == (low, high)


def test_a_layer_of_dead_channels_is_drawn(tmp_path: Path) -> None:
    figure = correlation_figure({"model": inspection(np.zeros((3, 3)))})
    save_figure(figure, tmp_path / "dead.png")
    assert (tmp_path / "dead.png").stat().st_size > 0


def png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    return int.from_bytes(header[16:20]), int.from_bytes(header[20:24])


@pytest.mark.parametrize(
    ("name", "magic"),
    [
        ("f.png", b"\x89PNG\r\n"),
        ("f.svg", b"<?xml"),
        ("f.pdf", b"%PDF"),
        ("F.PNG", b"\x89PNG"),
    ],
)
def test_figures_are_written_in_each_format(
    tmp_path: Path, name: str, magic: bytes
) -> None:
    results = {"a": inspection(np.eye(4)), "b": inspection(groups_of([4], 0.3))}
    save_figure(correlation_figure(results), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)


@pytest.mark.parametrize("layers", [3, 5])
def test_a_figure_is_1200_pixels_wide(tmp_path: Path, layers: int) -> None:
    result = inspection(*[np.eye(4)] * layers)
    save_figure(correlation_figure({"a": result, "b": result}), tmp_path / "f.png")
    assert png_size(tmp_path / "f.png")[0] == 1200


def test_no_global_state_of_matplotlib_is_touched(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    save_figure(correlation_figure({"a": inspection(np.eye(4))}), tmp_path / "f.png")
    assert dict(matplotlib.rcParams) == before
    path = str(tmp_path / "g.png")
    script = (
        "import sys; import nequip_decorr.inspection.figure as p; "
        "from nequip_decorr import plotting; "
        "assert 'matplotlib' not in sys.modules; "
        f"plotting.check_figure_path({path!r}); "
        "from nequip_decorr.inspection.result import from_json; "
        "r = from_json(sys.stdin.read()); "
        f"plotting.save_figure(p.correlation_figure({{'a': r}}), {path!r}); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=to_json(inspection(np.eye(4))),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert png_size(tmp_path / "g.png")[0] > 0


def test_what_cannot_be_written_is_known_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"in \.png, \.svg, \.pdf, got .*f\.jpg"):
        check_figure_path(tmp_path / "f.jpg")
    with pytest.raises(UserError, match="no such folder"):
        check_figure_path(tmp_path / "missing" / "f.png")
    assert check_figure_path(tmp_path / "f.png") == tmp_path / "f.png"
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if not installed
    with pytest.raises(UserError, match=r'pip install "nequip-decorr\[plot\]"'):
        check_figure_path(tmp_path / "f.png")


def test_the_made_up_reports_are_what_they_claim() -> None:
    report = layer(groups_of([4], 1.0))
    assert report.effective_rank == pytest.approx(1.0, abs=1e-6)
    assert math.isclose(report.mean_abs, 1.0)
