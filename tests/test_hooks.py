"""A tap on any torch module: what it keeps, and that it leaves nothing."""

import pytest
import torch
from torch import nn

from nequip_decorr.correlation.functional import as_blocks, moments, penalty
from nequip_decorr.errors import UserError
from nequip_decorr.hooks import Tap
from tests.support import reference


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.filter = nn.Sequential(nn.Linear(1, 6), nn.SiLU(), nn.Linear(6, 4))
        self.out = nn.Linear(4, 4)

    def forward(self, x, lengths):
        weights = self.filter(lengths)
        return self.out(x * weights), weights


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.layers = nn.ModuleList([Layer(), Layer()])

    def forward(self, x, lengths):
        x = self.embed(x)
        for layer in self.layers:
            x, _ = layer(x, lengths)
        return x.sum()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model().double()


def inputs(seed=1):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(20, 3, generator=rng, dtype=torch.float64)
    return x, torch.rand(20, 1, generator=rng, dtype=torch.float64)


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_it_keeps_what_the_named_modules_return(model):
    with Tap(model, "layers.*.filter") as tap:
        for seed in (1, 2):
            x, lengths = inputs(seed)
            model(x, lengths)
            assert list(tap.features) == ["layers.0.filter", "layers.1.filter"]
            for index, features in enumerate(tap.features.values()):
                expected = model.layers[index].filter[:3](lengths)
                assert torch.equal(features, expected)


def test_it_leaves_nothing(model):
    before, result = list(model.state_dict()), model(*inputs())
    with Tap(model, "*.filter") as tap:
        assert hooks(model) == 2
        assert list(model.state_dict()) == before
        assert torch.equal(model(*inputs()), result)
    assert hooks(model) == 0
    assert tap.features == {}


def test_it_goes_also_after_an_error_and_twice(model):
    with pytest.raises(KeyError), Tap(model, "embed") as tap:
        raise KeyError
    tap.remove()
    assert hooks(model) == 0


def test_several_patterns_and_a_pick(model):
    with Tap(model, "embed", "layers.1.filter.2") as tap:
        model(*inputs())
        assert list(tap.features) == ["embed", "layers.1.filter.2"]
    with Tap(model, "layers.[01]", pick=lambda _, result: result[1]) as tap:
        model(*inputs())
        assert [x.shape for x in tap.features.values()] == [(20, 4), (20, 4)]
    with Tap(model, "layers.1.out", pick=lambda inputs, _: inputs[0]) as tap:
        model(*inputs())
        assert list(tap.features) == ["layers.1.out"]


@pytest.mark.parametrize("patterns", [["layers.*.radial"], ["embed", "nothing"], []])
def test_a_pattern_that_fits_nothing_names_the_modules(model, patterns):
    with pytest.raises(UserError, match=r"matches one of .*layers\.0\.filter") as error:
        Tap(model, *patterns)
    assert "\n" not in str(error.value)
    assert hooks(model) == 0


def test_a_module_that_returns_no_tensor_is_named(model):
    message = r"expected module 'layers.0' to return a tensor .*got tuple; pass `pick`"
    with Tap(model, "layers.0"), pytest.raises(UserError, match=message):
        model(*inputs())


def test_the_gradient_of_a_penalty_reaches_the_weights(model):
    with Tap(model, "layers.0.filter") as tap:
        model(*inputs())
        (x,) = tap.features.values()
        value = penalty(moments(as_blocks(x))).mean()
        value.backward()
    assert value.item() == pytest.approx(reference.penalty(x.detach().numpy()))
    assert float(model.layers[0].filter[0].weight.grad.abs().max()) > 0
    assert model.layers[1].filter[0].weight.grad is None
