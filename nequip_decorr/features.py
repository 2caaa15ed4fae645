"""Which edge features a model has: the field, and how it divides into layers."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from . import _host


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
        ValueError: when there is no such field, it is not made of scalars, or
            ``layer_dim`` does not divide it; names the fields that there are.
    """
    allegro = _host.find_allegro(model)
    available = _host.scalar_fields(model)
    if field is None:
        if allegro is None:
            raise ValueError(
                f"expected a model with edge features, as Allegro has, got one that "
                f"outputs the scalar fields {sorted(available)}; name one of these as "
                f"`field`, or use an Allegro model"
            )
        field = allegro.field
    if field not in available:
        raise ValueError(
            f"expected `field` to be one of the model's scalar fields "
            f"{sorted(available)}, got '{field}'"
        )
    width = available[field]
    if layer_dim is None:
        own = allegro is not None and field == allegro.field
        layer_dim = allegro.layer_dim if allegro is not None and own else width
    if layer_dim < 1 or width % layer_dim:
        raise ValueError(
            f"expected `layer_dim` to divide the {width} channels of `{field}`, "
            f"got {layer_dim}"
        )
    return FeatureLayout(field, layer_dim, width // layer_dim)
