"""Which features of a model are decorrelated, and how they divide into layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.utils.hooks import RemovableHandle

from nequip_decorr.correlation.channels import Block, irrep_blocks, scalar_blocks
from nequip_decorr.errors import UserError
from nequip_decorr.training import nequip_internals

#: What the option ``features`` can name.
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
    """Features of a model: what they are, and how its output comes to hold them.

    Attributes:
        title: in words, for a log.
        blocks: which channels correlate with which.
        outputs: what the model must be made to output, by key; see :func:`tap`.
        rows: ``edge`` or ``node``: what has the features.
    """

    title: str
    blocks: list[Block]
    outputs: dict[str, nequip_internals.Output]
    rows: str = "edge"

    @property
    def layers(self) -> int:
        """Number of layers."""
        return 1 + max(block.layer for block in self.blocks)


class _Kind(NamedTuple):
    title: str
    find: Callable[[nn.Module], list[nequip_internals.Output]]
    models: str
    rows: str = "edge"


_TAPPED = {
    "radial": _Kind("radial weights", nequip_internals.radial_weights, "a NequIP GNN"),
    "messages": _Kind("messages", nequip_internals.messages, "a NequIP GNN"),
    "tensors": _Kind("tensors", nequip_internals.tensor_track, "an Allegro model"),
    "node": _Kind(
        "node features", nequip_internals.node_features, "a NequIP GNN", "node"
    ),
}


def check_kind(kind: str | None, field: str | None, layer_dim: int | None) -> None:
    """Check options that choose features, as far as that goes without a model.

    Raises:
        UserError: for an unknown ``kind``, or one beside ``field`` or ``layer_dim``.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(f"expected `features` to be one of {KINDS}, got '{kind}'")
    if kind is not None and field is not None:
        raise UserError(
            f"expected `features` or `field`, got both ({kind} and {field}); leave one "
            f"of them null"
        )
    if kind in _TAPPED and layer_dim is not None:
        raise UserError(
            f"expected `layer_dim` beside `field` or features edge only, got "
            f"{layer_dim} with features {kind}, whose layers are known; leave it null"
        )


def find_features(
    model: nn.Module,
    kind: str | None = None,
    field: str | None = None,
    layer_dim: int | None = None,
) -> Features:
    """Find features in a NequIP-framework model, built or packaged.

    Args:
        model: a ``GraphModel``.
        kind: ``edge`` (scalars of Allegro's layers), ``radial`` (weights of a NequIP
            GNN's tensor products, edge by edge), ``messages`` (what these return, edge
            by edge), ``tensors`` (Allegro's tensors) or ``node`` (node features of a
            NequIP GNN). None takes ``edge`` or ``radial``, whichever the model has.
        field, layer_dim: a field that the model outputs; see :func:`find_layout`.

    Raises:
        UserError: when the model has no such features, naming what to do.
    """
    check_kind(kind, field, layer_dim)
    if kind is None and field is None and nequip_internals.find_allegro(model) is None:
        kind = (
            "radial"
            if layer_dim is None and nequip_internals.radial_weights(model)
            else None
        )
    if kind not in _TAPPED:
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
            f"expected {chosen.models} for `features: {kind}`, got a model without "
            f"{chosen.title}; leave `features` null to take what the model has"
        )
    return _tapped(kind, chosen, found)


def tap(model: nn.Module, features: Features) -> list[RemovableHandle]:
    """Have a model output features; call before it is compiled.

    Returns:
        handles, whose ``remove()`` leaves the model as it was.
    """
    if not features.outputs:
        return []
    return nequip_internals.add_outputs(model, features.outputs, features.rows)


def _tapped(kind: str, chosen: _Kind, found: list[nequip_internals.Output]) -> Features:
    from e3nn.o3 import Irreps

    blocks: list[Block] = []
    outputs: dict[str, nequip_internals.Output] = {}
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
            f"expected {chosen.title} of two channels or more, got "
            f"{[output.irreps for output in found]}; nothing can be correlated"
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
    allegro = nequip_internals.find_allegro(model)
    available = nequip_internals.scalar_fields(model)
    if field is None:
        if allegro is None:
            raise UserError(
                f"expected a model with edge features, as Allegro has, got one that "
                f"outputs the scalar fields {sorted(available)}; name one of these as "
                f"`field`, or use an Allegro model"
            )
        field = allegro.field
    if field not in available:
        raise UserError(
            f"expected `field` to be one of the model's scalar fields "
            f"{sorted(available)}, got '{field}'"
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


def check_layers(
    found: Features, layers: Sequence[int] | None, layer_weights: Sequence[float] | None
) -> None:
    """Raise UserError unless the model has these layers, each with a weight or none.

    See :class:`nequip_decorr.EdgeCorrelation` for the two options.
    """
    bad = [i for i in layers or [] if not -found.layers <= i < found.layers]
    if bad:
        raise UserError(
            f"expected `layers` between 0 and {found.layers - 1}, got {bad}; "
            f"the features are {found.title}"
        )
    if len({i % found.layers for i in layers or []}) != len(layers or []):
        raise UserError(
            f"expected `layers` to name different ones of {found.layers} layers, got "
            f"{layers}; name each once"
        )
    count = found.layers if layers is None else len(layers)
    if layer_weights is not None and len(layer_weights) != count:
        raise UserError(
            f"expected one of `layer_weights` for each of {count} layers, got "
            f"{len(layer_weights)}"
        )
