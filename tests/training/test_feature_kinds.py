"""Features of real NequIP and Allegro models, as built, and what taps do to these."""

import gc
import weakref
from functools import cache
from pathlib import Path

import pytest
import torch
from ase.io import read
from e3nn.o3 import rand_matrix
from nequip.data import AtomicDataDict
from nequip.data.ase import from_ase
from nequip.data.transforms import (
    ChemicalSpeciesToAtomTypeMapper,
    NeighborListTransform,
)

from nequip_decorr import EdgeCorrelation
from nequip_decorr.errors import UserError
from nequip_decorr.training.features import find_features, tap
from tests.support import reference

DATA = Path(__file__).parent.parent / "data" / "hfo2.extxyz"
R_MAX = 3.5
COMMON = {"r_max": R_MAX, "model_dtype": "float64", "seed": 3}


@cache
def gnn(**options):
    size = {"num_layers": 3, "l_max": 2, "num_features": [4, 3, 2], "parity": True}
    return reference.build({**reference.NEQUIP_GNN, **COMMON, **size, **options})


@cache
def allegro(**options):
    size = {"l_max": 2, "num_scalar_features": 6, "num_tensor_features": 3}
    own = {"parity": True, **options}
    return reference.build({**reference.ALLEGRO, **COMMON, **size, **own})


def batch(turns=None):
    """Three frames, without their cells, each turned by a matrix of its own."""
    graphs = []
    for index, frame in enumerate(read(DATA, ":3")):
        frame.calc = None
        frame.pbc = False
        frame.cell = None
        if turns is not None:
            frame.positions = frame.positions @ turns[index].numpy().T
        graph = ChemicalSpeciesToAtomTypeMapper(model_type_names=["Hf", "O"])(
            from_ase(frame)
        )
        graphs.append(NeighborListTransform(r_max=R_MAX)(graph))
    return AtomicDataDict.batched_from_list(graphs)


def outputs(model, found, data=None):
    handles = tap(model, found)
    try:
        return model(batch() if data is None else data)
    finally:
        for handle in handles:
            handle.remove()


MODELS = {
    "edge": allegro,
    "tensors": allegro,
    "radial": gnn,
    "messages": gnn,
    "node": gnn,
}


@pytest.mark.parametrize("kind", MODELS)
def test_each_frame_may_be_turned_and_inverted(kind):
    model = MODELS[kind]()
    found = find_features(model, kind)
    torch.manual_seed(1)
    turns = rand_matrix(3, dtype=torch.float64)
    turns[1] *= -1
    metrics = []
    for data in (batch(), batch(turns)):
        metric = EdgeCorrelation(blocks=found.blocks)
        metric(outputs(model, found, data), {})
        metrics.append(metric)
    assert metrics[0].compute().item() > 1e-3
    assert metrics[1].compute().item() == pytest.approx(
        metrics[0].compute().item(), abs=1e-9
    )
    for a, b in zip(metrics[0].diagnosis(), metrics[1].diagnosis(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_radial_weights_are_what_weights_the_tensor_product():
    model = gnn()
    found = find_features(model, "radial")
    data = outputs(model, found)
    convolutions = [m for m in model.modules() if hasattr(m, "edge_mlp")]
    assert len(found.blocks) == len(convolutions) == 3
    for block, convolution in zip(found.blocks, convolutions, strict=True):
        expected = convolution.edge_mlp(data["edge_embedding"])
        assert torch.equal(data[block.field], expected)
        assert expected.shape[1] == block.channels
        assert block.channels == convolution.tp_scatter.tp.weight_numel
    widths = ", ".join(f"{block.channels} channels" for block in found.blocks)
    assert found.title == f"radial weights, 3 layers: {widths}"


def test_messages_add_up_to_what_the_block_scatters():
    model = gnn()
    found = find_features(model, "messages")
    convolution = next(m for m in model.modules() if hasattr(m, "edge_mlp"))
    scattered = []
    hook = convolution.tp_scatter.register_forward_hook(
        lambda _, inputs, result: scattered.append(result)
    )
    data = outputs(model, found)
    hook.remove()
    messages = data[found.blocks[0].field]
    summed = torch.zeros_like(scattered[0]).index_add(
        0, data["edge_index"][0], messages
    )
    torch.testing.assert_close(summed, scattered[0], rtol=1e-12, atol=1e-12)
    names = [block.name for block in found.blocks if block.layer == 0]
    assert names == ["0_messages_0e", "0_messages_1o", "0_messages_2e"]


def test_the_last_node_features_are_those_of_the_output():
    model = gnn()
    found = find_features(model, "node")
    data = outputs(model, found)
    last = found.blocks[-1]
    assert (last.layer, last.name, last.channels) == (2, "2_node_0e", 4)
    assert torch.equal(data[last.field], data["node_features"])
    assert found.rows == "node"
    assert data[found.blocks[0].field].shape[0] == len(data["pos"])


def test_tensors_are_what_goes_through_allegros_products():
    model = allegro()
    found = find_features(model, "tensors")
    products = next(m for m in model.modules() if hasattr(m, "tps")).tps
    seen = []
    hooks = [
        product.register_forward_hook(
            lambda _, inputs, result: seen.append((inputs[0], result))
        )
        for product in products
    ]
    data = outputs(model, found)
    for hook in hooks:
        hook.remove()
    # each product takes what the one before it returned
    tracks = [seen[0][0], *(result for _, result in seen)]
    fields = sorted({block.field for block in found.blocks})
    layers = {block.layer for block in found.blocks}
    assert len(fields) == len(tracks) == len(layers) == 3
    for field, track in zip(fields, tracks, strict=True):
        assert torch.equal(data[field], track)
    two_body = [block for block in found.blocks if block.layer == 0]
    assert [b.name for b in two_body] == [
        "0_tensors_0e",
        "0_tensors_1o",
        "0_tensors_2e",
    ]
    assert {b.channels for b in found.blocks} == {3}
    assert [b.name for b in found.blocks if b.layer == 2] == ["2_tensors_0e"]


@pytest.mark.parametrize("kind", MODELS)
def test_a_tapped_model_computes_the_same_and_keeps_nothing(kind):
    model = MODELS[kind]()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    before = model(batch())
    found = find_features(model, kind)
    tapped = outputs(model, found)
    for key, value in before.items():
        torch.testing.assert_close(tapped[key], value, rtol=0, atol=0, equal_nan=True)
    assert set(tapped) - set(before) == set(found.outputs)
    after = model(batch())
    assert set(after) == set(before)
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(model.state_dict()[key], state[key]) for key in state)


def test_a_tap_lets_go_of_the_features_of_a_call():
    model = gnn()
    found = find_features(model, "radial")
    handles = tap(model, found)
    data = model(batch())
    features = weakref.ref(data[found.blocks[0].field])
    assert features() is not None
    del data
    gc.collect()
    assert features() is None
    for handle in handles:
        handle.remove()


def test_what_a_user_expects_of_each_model():
    by_default = find_features(allegro())
    assert by_default.title == "`edge_features`, 3 layers of 6 channels"
    assert by_default.blocks == find_features(allegro(), "edge").blocks
    assert by_default.outputs == {}
    assert find_features(gnn()).title == find_features(gnn(), "radial").title
    one = find_features(gnn(), "edge_embedding")
    assert one.title == "`edge_embedding`, 1 layers of 8 channels"


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (gnn, {"features": "tensors"}, "`features: tensors` needs an Allegro model"),
        (allegro, {"features": "radial"}, "radial` needs a NequIP GNN.* no radial we"),
        (allegro, {"features": "messages"}, "`features: messages` needs a NequIP GNN"),
        (allegro, {"features": "node"}, "no node features; leave `features` null"),
        (
            allegro,
            {"features": "edges"},
            r"\['edge', .* scalar fields \['edge_embedding'.*got 'edges'",
        ),
        (gnn, {"features": "radial", "layer_dim": 4}, "`features: radial`.*got 4"),
        (gnn, {"layer_dim": 4}, "no edge features such as Allegro's"),
    ],
)
def test_what_a_model_does_not_have_is_said(model, options, message):
    with pytest.raises(UserError, match=message) as error:
        find_features(model(), **options)
    assert "\n" not in str(error.value)


def test_tensors_of_one_channel_have_nothing_to_correlate():
    model = allegro(num_tensor_features=1)
    with pytest.raises(UserError, match="tensors of at least two channels, got"):
        find_features(model, "tensors")


def test_a_fused_kernel_forms_no_messages():
    model = gnn(num_layers=1)
    (convolution,) = [m for m in model.modules() if hasattr(m, "tp_scatter")]
    # what NequIP's OpenEquivariance and CuEquivariance modifiers leave in its place
    convolution.tp_scatter.tp_conv = torch.nn.Identity()
    assert {block.layer for block in find_features(model, "radial").blocks} == {0}
    with pytest.raises(UserError, match="the fused kernel TensorProductScatter"):
        find_features(model, "messages")
    del convolution.tp_scatter.tp_conv
