"""What is measured, on models as NequIP builds them, before any training.

Numbers against numpy's, for models from files, are in ``commands/test_inspect.py``.
"""

from __future__ import annotations

from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from nequip_decorr.errors import UserError
from nequip_decorr.inspection.measure import inspect_model
from nequip_decorr.inspection.result import reading
from tests.support import reference
from tests.support.commands import DATA


@pytest.fixture(scope="module")
def frames() -> list[Atoms]:
    return ase.io.read(DATA, ":12")  # type: ignore[no-any-return]


def allegro(**options: Any) -> torch.nn.Module:
    return built({**reference.ALLEGRO, "num_layers": 1, **options})


def nequip() -> torch.nn.Module:
    return built({**reference.NEQUIP_GNN, "num_layers": 2, "num_features": 6})


def built(config: dict[str, Any]) -> torch.nn.Module:
    model: torch.nn.Module = reference.build({**config, "r_max": 3.5})
    return model.eval()


def test_labels_are_not_needed_and_may_differ_between_frames(
    frames: list[Atoms],
) -> None:
    bare = [atoms.copy() for atoms in frames[::2]]
    mixed = [atoms for pair in zip(bare, frames[1::2], strict=True) for atoms in pair]
    assert [atoms.calc is None for atoms in mixed] == [True, False] * 6
    model = allegro()
    assert inspect_model(model, mixed) == inspect_model(model, frames)


def test_frames_with_and_without_cell_or_neighbors_go_together(
    frames: list[Atoms],
) -> None:
    periodic = frames[0]
    dimer = Atoms("HfO", positions=[[0, 0, 0], [0, 0, 1.8]])
    lone = Atoms("O", positions=[[0, 0, 0]])
    model = allegro()
    alone = inspect_model(model, [periodic])
    together = inspect_model(model, [lone, periodic, dimer])
    assert together.rows == alone.rows + 2


def test_a_dead_channel_is_found(frames: list[Atoms]) -> None:
    model = allegro()
    kill_channel(model, 2)
    report = inspect_model(model, frames)
    assert [each.dead_channels for each in report.layers] == [(2,), ()]
    assert np.array(report.layers[0].correlation)[2] == pytest.approx(np.zeros(4))
    assert "(dead): 1." in reading(report)


def kill_channel(model: torch.nn.Module, channel: int) -> None:
    """Make a channel of the two-body scalars 0 in the model's output."""

    def without(module: Any, inputs: Any, output: Any) -> Any:
        features = output["edge_features"].clone()
        features[:, channel] = 0
        return {**output, "edge_features": features}

    model.register_forward_hook(without)


def test_features_that_are_not_finite_are_refused_with_layer_and_frames(
    frames: list[Atoms],
) -> None:
    model = allegro()
    calls = []

    def poison(module: Any, inputs: Any, output: Any) -> Any:
        calls.append(1)
        features = output["edge_features"].clone()
        if len(calls) == 2:
            features[3, 5] = float("nan")
        return {**output, "edge_features": features}

    model.register_forward_hook(poison)
    with pytest.raises(UserError, match=r"in layer 1, frames 5 to 9 ") as caught:
        inspect_model(model, frames)
    assert "\n" not in str(caught.value)


def test_cutoffs_per_pair_of_elements_are_kept(frames: list[Atoms]) -> None:
    cutoffs = {"Hf": {"Hf": 3.5, "O": 2.5}, "O": {"Hf": 2.5, "O": 3.0}}
    atoms = frames[0]
    report = inspect_model(allegro(per_edge_type_cutoff=cutoffs), [atoms])
    first, second, length = neighbor_list("ijd", atoms, 3.5)
    within = [
        d <= cutoffs[atoms.symbols[i]][atoms.symbols[j]]
        for i, j, d in zip(first, second, length, strict=True)
    ]
    assert report.rows == sum(within) < len(length)


def test_another_field_is_one_block_of_atoms_or_as_many_as_told(
    frames: list[Atoms],
) -> None:
    frames = frames[:4]
    model = nequip()
    report = inspect_model(model, frames, features="node_features")
    assert report.row_kind == "atoms"
    assert report.rows == sum(map(len, frames))
    assert [(each.name, each.channels) for each in report.layers] == [("0", 6)]
    halves = inspect_model(model, frames, features="node_features", layer_dim=3)
    assert [(each.name, each.channels) for each in halves.layers] == [
        ("0", 3),
        ("1", 3),
    ]
    whole = np.array(report.layers[0].correlation)
    assert np.array(halves.layers[1].correlation) == pytest.approx(whole[3:, 3:])


def test_the_radial_weights_of_a_gnn_are_found(frames: list[Atoms]) -> None:
    model = nequip()
    kept: list[list[NDArray[np.float32]]] = [[], []]
    networks = [m for n, m in model.named_modules() if n.endswith("conv.edge_mlp")]
    assert len(networks) == 2
    handles = [
        network.register_forward_hook(
            lambda _, inputs, result, rows=rows: rows.append(result.detach().numpy())
        )
        for network, rows in zip(networks, kept, strict=True)
    ]
    report = inspect_model(model, frames[:4], batch_size=1)
    for handle in handles:
        handle.remove()
    assert report.field == "radial weights"
    assert [layer.name for layer in report.layers] == ["0 radial", "1 radial"]
    for layer, rows in zip(report.layers, kept, strict=True):
        x = np.concatenate(rows).astype(float)
        assert (report.rows, layer.channels) == x.shape
        expected = np.corrcoef(x, rowvar=False)
        assert np.array(layer.correlation) == pytest.approx(expected, abs=1e-6)
    assert not any(module._forward_hooks for module in model.modules())


def test_tensors_have_a_report_for_each_irrep(frames: list[Atoms]) -> None:
    report = inspect_model(allegro(num_layers=2), frames[:3], features="tensors")
    assert report.row_kind == "edges"
    labels = [layer.name.split()[-1] for layer in report.layers]
    assert {"0e", "1o"} <= set(labels)


def test_features_that_a_model_does_not_have_are_named(frames: list[Atoms]) -> None:
    with pytest.raises(UserError, match="needs an Allegro model") as caught:
        inspect_model(nequip(), frames, features="tensors")
    assert "\n" not in str(caught.value)
