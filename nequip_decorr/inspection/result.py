"""Result of an inspection: as data, as JSON and in words."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from nequip_decorr.errors import UserError

SCHEMA = "nequip_decorr.inspection.result/1"

# These change the wording only: above this share of the width there is little to lower;
# below these amounts of data there is a warning.
_LITTLE_LEFT = 0.9
_FEW_FRAMES, _FEW_ROWS_PER_CHANNEL = 10, 20


@dataclass(frozen=True)
class LayerReport:
    """Correlation of one layer's channels; see :class:`.functional.Diagnosis`.

    Attributes:
        name: index of the layer, and its kind where that is known.
        channels: number of channels C.
        mean_abs: mean |rho| over pairs of live channels.
        rms: root of the mean rho^2.
        maximum: largest |rho|.
        mean_square_debiased: mean rho^2 minus the bias of finite sampling.
        effective_rank: RankMe of the correlation matrix, 1 to C (0: all dead).
        participation_ratio: another effective rank, C / (1 + (C-1) mean rho^2).
        dead_channels: zero-based indices of the channels that do not vary.
        eigenvalues: of the correlation matrix, largest first, length C.
        correlation: the matrix, C rows of C; rows and columns of dead channels are 0.
    """

    name: str
    channels: int
    mean_abs: float
    rms: float
    maximum: float
    mean_square_debiased: float
    effective_rank: float
    participation_ratio: float
    dead_channels: tuple[int, ...]
    eigenvalues: tuple[float, ...]
    correlation: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Inspection:
    """A model, the data it was inspected on, and each layer's correlations.

    Attributes:
        model: path of the model.
        data: path of the data.
        field: the features' field in the model's output.
        frames: number of frames.
        rows: number of rows (``row_kind``) that were pooled.
        row_kind: ``edges`` or ``atoms``.
        layers: in the model's order.
    """

    model: str
    data: str
    field: str
    frames: int
    rows: int
    row_kind: str
    layers: tuple[LayerReport, ...]
    schema: str = SCHEMA


def to_json(inspection: Inspection) -> str:
    """Write one JSON document; :func:`from_json` returns an equal object."""
    return json.dumps(asdict(inspection), allow_nan=False)


def from_json(text: str) -> Inspection:
    """Inverse of :func:`to_json`.

    Raises:
        UserError: when the text is no JSON, or its ``schema`` is not :data:`SCHEMA`.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"expected the JSON of `nequip-decorr inspect --json`, got something else "
            f"({error})"
        ) from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise UserError(
            f"expected JSON with schema '{SCHEMA}', got {schema!r}; rerun "
            f"`nequip-decorr inspect` with this version"
        )
    layers = tuple(
        LayerReport(
            **{
                **layer,
                "dead_channels": tuple(layer["dead_channels"]),
                "eigenvalues": tuple(layer["eigenvalues"]),
                "correlation": tuple(tuple(row) for row in layer["correlation"]),
            }
        )
        for layer in data.pop("layers")
    )
    return Inspection(**data, layers=layers)


def reading(inspection: Inspection) -> str:
    """Explain the numbers, and their limits, in plain sentences.

    About the layer whose effective rank is the smallest share of its width.
    """
    layer = min(inspection.layers, key=lambda each: each.effective_rank / each.channels)
    if len(layer.dead_channels) >= layer.channels - 1:
        return (
            f"In layer {layer.name} no two channels vary over these data (dead), so "
            f"there is nothing to correlate: inspect with more and more varied frames."
        )
    sentences = [
        f"Most redundant is layer {layer.name}: its {layer.channels} channels vary "
        f"like {layer.effective_rank:.1f} uncorrelated ones (effective rank), and two "
        f"channels correlate with |ρ| = {layer.mean_abs:.2f} on average."
    ]
    if layer.effective_rank >= _LITTLE_LEFT * layer.channels:
        sentences.append("That leaves a decorrelation term little to lower.")
    else:
        sentences.append(
            "The decorrelation term lowers this redundancy. These numbers do not show "
            "whether that improves errors or MD: train with the term, then compare on "
            "the same data and in MD (`nequip-decorr md`)."
        )
    dead = sum(len(each.dead_channels) for each in inspection.layers)
    if dead:
        sentences.append(f"Channels that do not vary over these data (dead): {dead}.")
    rows_wanted = _FEW_ROWS_PER_CHANNEL * layer.channels
    if inspection.frames < _FEW_FRAMES or inspection.rows < rows_wanted:
        sentences.append(
            f"Little data ({inspection.frames} frames, {inspection.rows} "
            f"{inspection.row_kind}): few or similar frames make channels look more "
            f"correlated than they are over all that the model is for."
        )
    return " ".join(sentences)
