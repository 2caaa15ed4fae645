"""Which features of a model are decorrelated, and how they divide into layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn
from torch.utils.hooks import RemovableHandle

from nequip_decorr.correlation.channels import Block, irrep_blocks, scalar_blocks
from nequip_decorr.errors import UserError
from nequip_decorr.training import nequip_models

#: What the option ``features`` can name, beside fields of the model's output.
KINDS = ("edge", "radial", "messages", "tensors", "node")


class FeatureLayout(NamedTuple):
    """Where features are and how they are laid out.

    Attributes:
        field: key in the model's output, features of shape (edges, channels).
        layer_dim: channels of one layer's block.
        layers: number of blocks.
    """

    field: str
    layer_dim: int
    layers: int


class Features(NamedTuple):
    """Features of a model.

    Attributes:
        title: description for logs.
        blocks: channels that are correlated with each other.
        outputs: what hooks must add to the model's output, by key; see :func:`tap`.
        rows: ``edge`` or ``node``: what the rows of the features are.
    """

    title: str
    blocks: list[Block]
    outputs: dict[str, nequip_models.Output]
    rows: str = "edge"


class _Kind(NamedTuple):
    title: str
    find: Callable[[nn.Module], list[nequip_models.Output]]
    models: str
    rows: str = "edge"


_TAPPED = {
    "radial": _Kind("radial weights", nequip_models.radial_weights, "a NequIP GNN"),
    "messages": _Kind("messages", nequip_models.messages, "a NequIP GNN"),
    "tensors": _Kind("tensors", nequip_models.tensor_track, "an Allegro model"),
    "node": _Kind("node features", nequip_models.node_features, "a NequIP GNN", "node"),
}


def check_features(features: str | None, layer_dim: int | None) -> None:
    """Check the choice of features, as far as that is possible without a model.

    Raises:
        UserError: for ``layer_dim`` beside features whose layers are known.
    """
    if features in _TAPPED and layer_dim is not None:
        raise UserError(
            f"expected no `layer_dim` with `features: {features}`, whose layers are "
            f"known, got {layer_dim}; leave it null"
        )


def find_features(
    model: nn.Module, features: str | None = None, layer_dim: int | None = None
) -> Features:
    """Find features in a NequIP-framework model, built or packaged.

    Args:
        model: a ``GraphModel``.
        features: ``edge`` (scalars of Allegro's layers), ``radial`` (weights of a
            NequIP GNN's tensor products, edge by edge), ``messages`` (output of these
            products, edge by edge), ``tensors`` (Allegro's tensors), ``node`` (node
            features of a NequIP GNN), or a field that the model outputs. None takes
            ``edge`` or ``radial``, whichever the model has.
        layer_dim: channels of one layer of a field; see :func:`find_layout`.

    Raises:
        UserError: when the model has no such features, naming what to do.
    """
    check_features(features, layer_dim)
    kind = features
    if features is None and layer_dim is None:
        no_allegro = nequip_models.find_allegro(model) is None
        kind = "radial" if no_allegro and nequip_models.radial_weights(model) else None
    if kind not in _TAPPED:
        field = None if kind == "edge" else features
        layout = find_layout(model, field, layer_dim)
        title = f"`{layout.field}`, {layout.layers} layers of {layout.layer_dim}"
        return Features(
            f"{title} channels",
            scalar_blocks(layout.field, layout.layer_dim, layout.layers),
            outputs={},
        )
    chosen = _TAPPED[kind]
    found = chosen.find(model)
    if not found:
        raise UserError(
            f"`features: {kind}` needs {chosen.models}, and this model has no "
            f"{chosen.title}; leave `features` null to take what the model has"
        )
    return _tapped(kind, chosen, found)


def tap(model: nn.Module, features: Features) -> list[RemovableHandle]:
    """Make a model output features; call before it is compiled.

    Returns:
        handles; their ``remove()`` restores the model.
    """
    if not features.outputs:
        return []
    return nequip_models.add_outputs(model, features.outputs, features.rows)


def _tapped(kind: str, chosen: _Kind, found: list[nequip_models.Output]) -> Features:
    from e3nn.o3 import Irreps

    blocks: list[Block] = []
    outputs: dict[str, nequip_models.Output] = {}
    widths: list[str] = []
    for output in found:
        irreps: Any = Irreps(output.irreps)
        layer = len(outputs)
        key, name = f"decorr_{kind}_{layer}", f"{layer}_{kind}"
        of_layer = irrep_blocks(key, irreps, layer, name, output.strided)
        if not of_layer:
            continue
        if kind == "radial":
            of_layer = [block._replace(name=name) for block in of_layer]
        blocks += of_layer
        outputs[key] = output
        mul = output.strided
        full = irreps if mul is None else Irreps([(mul, ir) for _, ir in irreps])
        widths.append(
            f"{full.dim} channels" if kind == "radial" else str(full.simplify())
        )
    if not blocks:
        raise UserError(
            f"expected {chosen.title} of at least two channels, got "
            f"{[output.irreps for output in found]}; there is nothing to correlate"
        )
    same = len(set(widths)) == 1
    what = f" of {widths[0]}" if same else f": {', '.join(widths)}"
    return Features(
        f"{chosen.title}, {len(widths)} layers{what}", blocks, outputs, chosen.rows
    )


def find_layout(
    model: nn.Module, field: str | None = None, layer_dim: int | None = None
) -> FeatureLayout:
    """Find the edge features in a NequIP-framework model, built or packaged.

    Args:
        model: a ``GraphModel``.
        field: the field to use; None takes the scalar output of the Allegro layers.
        layer_dim: channels of one layer; None takes Allegro's ``num_scalar_features``
            for its own field, and the whole of any other field.

    Raises:
        UserError: when there is no such field, it is not made of scalars, or
            ``layer_dim`` does not divide it; names the fields that there are.
    """
    allegro = nequip_models.find_allegro(model)
    available = nequip_models.scalar_fields(model)
    if field is None:
        if allegro is None:
            raise UserError(
                f"this model has no edge features such as Allegro's; set `features` to "
                f"one of its scalar fields {sorted(available)}, or use an Allegro model"
            )
        field = allegro.field
    if field not in available:
        raise UserError(
            f"expected `features` to be one of {list(KINDS)} or of the model's scalar "
            f"fields {sorted(available)}, got '{field}'"
        )
    width = available[field]
    if layer_dim is None:
        own = allegro is not None and field == allegro.field
        layer_dim = allegro.layer_dim if allegro is not None and own else width
    if layer_dim < 1 or width % layer_dim:
        raise UserError(
            f"expected `layer_dim` to divide the {width} channels of `{field}`, "
            f"got {layer_dim}"
        )
    return FeatureLayout(field, layer_dim, width // layer_dim)
