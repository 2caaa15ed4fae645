"""What NequIP's and Allegro's modules do not promise: where models keep features.

Names are looked up by attribute, since the classes of a packaged model are not those of
the environment. Tried with the versions in
:data:`nequip_decorr.training.nequip_internals.TRIED`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nequip_decorr.errors import UserError
from nequip_decorr.hooks import Pick, listen, output


class AllegroLayers(NamedTuple):
    """Output field of a model's Allegro layers, and the channels of each."""

    field: str
    layer_dim: int


def find_allegro(model: nn.Module) -> AllegroLayers | None:
    """The Allegro layers of a model, or None."""
    module: Any = _allegro_module(model)
    if module is None:
        return None
    return AllegroLayers(str(module.scalar_out_field), int(module.num_scalar_features))


class Output(NamedTuple):
    """Features that a module of a model computes.

    Attributes:
        module: the module.
        irreps: irreps of the features, in e3nn's notation.
        strided: number of channels for Allegro's layout (rows, channels, components);
            None for e3nn's.
        pick: takes the features from the module's positional inputs and output.
    """

    module: nn.Module
    irreps: str
    strided: int | None = None
    pick: Pick = output


def radial_weights(model: nn.Module) -> list[Output]:
    """Weights of the tensor product of each interaction block of a NequIP GNN."""
    return [
        Output(block.edge_mlp, f"{block.tp_scatter.tp.weight_numel}x0e")
        for block in _interaction_blocks(model)
    ]


def messages(model: nn.Module) -> list[Output]:
    """Output of the tensor product of each interaction block, for each edge.

    Raises:
        UserError: when a fused kernel sums them over edges without forming them.
    """
    blocks = _interaction_blocks(model)
    for block in blocks:
        if hasattr(block.tp_scatter, "tp_conv"):
            raise UserError(
                f"the fused kernel {type(block.tp_scatter).__name__} sums messages "
                f"without forming them; set `features: radial`, or train without the "
                f"kernel"
            )
    return [Output(b.tp_scatter.tp, str(b.tp_scatter.tp.irreps_out)) for b in blocks]


def node_features(model: nn.Module) -> list[Output]:
    """Output of each convolution layer of a NequIP GNN, for each atom."""
    from nequip.data import AtomicDataDict

    key = AtomicDataDict.NODE_FEATURES_KEY
    layers: list[Any] = [
        module
        for module in model.modules()
        if hasattr(module, "conv") and hasattr(module, "equivariant_nonlin")
    ]
    return [
        Output(layer, str(layer.irreps_out[key]), pick=lambda _, data: data[key])
        for layer in layers
    ]


def tensor_track(model: nn.Module) -> list[Output]:
    """Two-body tensors, and those of each layer, of a model with Allegro layers."""
    module: Any = _allegro_module(model)
    if module is None:
        return []
    first = module.tps[0]
    two_body = Output(
        first, str(first.irreps_in1), first.mul, pick=lambda inputs, _: inputs[0]
    )
    return [two_body, *(Output(tp, str(tp.irreps_out), tp.mul) for tp in module.tps)]


def add_outputs(
    model: nn.Module, outputs: dict[str, Output], kind: str
) -> list[RemovableHandle]:
    """Make a ``GraphModel`` return features that its modules compute.

    Hooks on the modules keep the features, and one on the whole model writes them into
    the data before it returns. The hooks run while NequIP traces a model for
    compilation, so the compiled model outputs the features too, permanently. The
    model's state and its classes do not change.

    Args:
        model: the model of a training.
        outputs: features by key of the new field.
        kind: what their rows are, ``edge`` or ``node``.
    """
    from nequip.data import register_fields

    register_fields(**{f"{kind}_fields": list(outputs)})
    store: dict[str, Tensor] = {}

    def write(_: nn.Module, inputs: Any, data: dict[str, Tensor]) -> None:
        data.update(store)
        store.clear()

    body: Any = model.model
    handles = [
        listen(each.module, store, key, each.pick) for key, each in outputs.items()
    ]
    return [*handles, body.register_forward_hook(write)]


def _interaction_blocks(model: nn.Module) -> list[Any]:
    return [
        module
        for module in model.modules()
        if hasattr(module, "edge_mlp") and hasattr(module, "tp_scatter")
    ]


def _allegro_module(model: nn.Module) -> nn.Module | None:
    for module in model.modules():
        if hasattr(module, "scalar_out_field") and hasattr(module, "tps"):
            return module
    return None


def scalar_fields(model: nn.Module) -> dict[str, int]:
    """Edge and node fields of a model's output made of two or more invariant scalars:
    their widths.
    """
    from nequip.data import AtomicDataDict

    node_or_edge = ("edge", "node")
    fields = {}
    for name, irreps in model.irreps_out.items():  # type: ignore[union-attr,operator]
        if irreps is None or any(ir.l > 0 or ir.p < 0 for _, ir in irreps):
            continue
        kind = AtomicDataDict._key_registry.get_field_type(
            name, error_on_unregistered=False
        )
        if kind in node_or_edge and irreps.dim > 1:
            fields[name] = int(irreps.dim)
    return fields
