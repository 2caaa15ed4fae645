"""Which features real models have, and what is said of a model that has none."""

import pytest
import torch

from nequip_decorr import EdgeCorrelation
from nequip_decorr.errors import UserError
from nequip_decorr.training import nequip_models
from nequip_decorr.training.features import FeatureLayout, find_layout
from tests.support import reference


@pytest.fixture(scope="module")
def frame():
    reference.build(reference.ALLEGRO)  # sets NequIP's global state
    return reference.hafnia_frame()


@pytest.fixture(scope="module")
def allegro():
    return reference.build(reference.ALLEGRO)


@pytest.fixture(scope="module")
def gnn():
    return reference.build(reference.NEQUIP_GNN)


def test_the_layout_of_allegro_is_that_of_its_output(allegro, frame):
    layout = find_layout(allegro)
    # the two-body embedding and two layers, of 4 scalars each
    assert layout == FeatureLayout("edge_features", 4, 3)
    output = allegro(dict(frame))
    edges = output["edge_index"].shape[1]
    assert output[layout.field].shape == (edges, 12)
    assert output[layout.field].requires_grad


def test_the_blocks_of_allegro_are_its_layers(allegro, frame):
    # a layer's block does not change when only later layers do
    changed = reference.build(reference.ALLEGRO)
    with torch.no_grad():
        for name, weights in changed.named_parameters():
            if "allegro.latents.1" in name:
                weights.mul_(1.5)
    before, after = (
        model(dict(frame))["edge_features"].view(-1, 3, 4)
        for model in (allegro, changed)
    )
    assert [torch.equal(before[:, i], after[:, i]) for i in range(3)] == [
        True,
        True,
        False,
    ]


def test_the_term_is_right_on_a_real_model_and_reaches_its_weights(frame):
    model = reference.build(reference.ALLEGRO)
    layout = find_layout(model)
    output = model(dict(frame))
    value = EdgeCorrelation(layout.field, layout.layer_dim)(output, {})
    value.backward()
    blocks = output[layout.field].detach().double().view(-1, 3, 4).numpy()
    expected = [reference.penalty(blocks[:, layer]) for layer in range(3)]
    assert value.item() == pytest.approx(
        sum(expected) / 3, abs=reference.FLOAT32_TOLERANCE
    )
    latents = [p.grad for n, p in model.named_parameters() if "latents" in n]
    assert len(latents) == 4
    for grad in latents:
        assert grad.isfinite().all()
        assert grad.abs().max() > 0


@pytest.mark.parametrize("layers", [1, 3])
def test_the_number_of_layers_follows_the_model(layers):
    model = reference.build({**reference.ALLEGRO, "num_layers": layers})
    assert find_layout(model) == FeatureLayout("edge_features", 4, layers + 1)


def test_every_field_on_offer_is_a_matrix_of_the_output(allegro, gnn, frame):
    for model in (allegro, gnn):
        output = model(dict(frame))
        edges, atoms = output["edge_index"].shape[1], output["pos"].shape[0]
        fields = nequip_models.scalar_fields(model)
        assert fields
        for field, width in fields.items():
            assert output[field].is_floating_point()
            assert tuple(output[field].shape) in {(edges, width), (atoms, width)}
            assert width > 1


def test_what_is_no_scalar_is_not_on_offer(allegro, gnn):
    for model in (allegro, gnn):
        assert not {"forces", "edge_attrs", "pos", "total_energy"} & set(
            nequip_models.scalar_fields(model)
        )


def test_another_field_is_one_block(allegro, gnn):
    assert find_layout(allegro, "edge_embedding") == ("edge_embedding", 4, 1)
    assert find_layout(gnn, "edge_embedding") == ("edge_embedding", 8, 1)
    assert find_layout(gnn, "node_features") == ("node_features", 4, 1)


def test_another_layer_dim(allegro, gnn):
    assert find_layout(allegro, layer_dim=6) == ("edge_features", 6, 2)
    assert find_layout(gnn, "edge_embedding", 2) == ("edge_embedding", 2, 4)


def test_a_model_without_edge_features_gets_its_fields_named(gnn):
    with pytest.raises(UserError, match=r"no edge features such as Allegro's") as error:
        find_layout(gnn)
    assert "['edge_embedding', 'node_attrs', 'node_features']" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["edge_feature", "forces", "edge_attrs", ""])
def test_an_unknown_field_gets_the_known_ones_named(allegro, field):
    with pytest.raises(UserError, match=f"got '{field}'") as error:
        find_layout(allegro, field)
    assert "['edge_embedding', 'edge_features']" in str(error.value)


@pytest.mark.parametrize("layer_dim", [5, 0, -4, 24])
def test_a_layer_dim_that_does_not_divide(allegro, layer_dim):
    with pytest.raises(UserError, match=f"divide the 12 channels.*got {layer_dim}"):
        find_layout(allegro, layer_dim=layer_dim)
