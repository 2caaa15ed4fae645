"""Options of :class:`nequip_decorr.EdgeDecorrelation`: groups, defaults, reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

from nequip_decorr.checks import (
    as_list,
    check_choice,
    check_number,
    check_switch,
    check_whole,
    names_of,
    plain,
)
from nequip_decorr.correlation.channels import check_layer_weights
from nequip_decorr.correlation.functional import PENALTIES, VARIANCE_FLOOR
from nequip_decorr.correlation.sampled import MAX_CHANNELS, MAX_EDGES
from nequip_decorr.errors import UserError
from nequip_decorr.training.feedback import Target
from nequip_decorr.training.fields import build, option, read_mapping
from nequip_decorr.training.schedules import (
    Constant,
    Cosine,
    Cyclical,
    Linear,
    Schedule,
)

#: Of a term without a schedule: as in the preset ``default``.
RECOMMENDED: dict[str, dict[str, Any]] = {
    "schedule": {"kind": "constant", "coeff": 1.0, "relative": True},
    "sample": {"every": 4},
}

#: Classes of schedules by their ``kind``.
SCHEDULES: dict[str, type[Schedule]] = {
    each.kind: each for each in (Constant, Linear, Cosine, Cyclical, Target)
}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What is sampled from each training batch, and how often the term is applied."""

    edges: int | None = option(
        MAX_EDGES,
        "edges to sample from each rank's batch, drawn anew at each step; with more "
        "edges, the cost of the term does not grow. null: all",
    )
    channels: int | None = option(
        MAX_CHANNELS, "channels to sample from each layer, likewise. null: all"
    )
    every: int = option(
        1,
        "apply the term every so many optimizer steps, with its coefficient times this "
        "number, so that its average weight is the same at a lower cost (lazy "
        "regularisation, arXiv:1912.04958). The pattern shifts by one step in each "
        "epoch, so that every batch of an unshuffled loader is used. The logged "
        "coefficient is the average",
    )
    seed: int = option(0, "seed of the draws, together with the step")

    def __post_init__(self) -> None:
        for name in ("edges", "channels"):
            check_whole(f"sample.{name}", getattr(self, name), least=2, null=True)
        check_whole("sample.every", self.every, least=1)
        check_whole("sample.seed", self.seed, least=0)


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """Which function of the correlation matrix is penalised."""

    kind: str = option(
        "square", "`square` (mean R^2 over pairs of channels) or `abs` (mean abs(R))"
    )
    floor: float = option(
        VARIANCE_FLOOR,
        "relative variance floor, between 0 and 1; keeps the gradient of channels with "
        "vanishing variance from diverging",
    )

    def __post_init__(self) -> None:
        check_choice("penalty.kind", self.kind, PENALTIES)
        check_number("penalty.floor", self.floor, most=1)


@dataclass(frozen=True, kw_only=True)
class Options:
    """All options of the callback, checked."""

    schedule: Schedule = option(Cosine(), "how the coefficient changes, see below")
    sample: Sample = option(Sample(), "what a step draws, see below")
    penalty: Penalty = option(Penalty(), "what is penalised, see below")
    features: str | None = option(
        None,
        "`edge` (scalar edge features of an Allegro model), `radial` (radial weights "
        "of a NequIP GNN's tensor products, edge by edge), `messages` (output of these "
        "products), `tensors` (tensor features of Allegro's layers, by irrep), `node` "
        "(node features of a GNN, for comparison), or the name of a scalar field in "
        "the model's output. null: `edge` or `radial`, whichever the model has",
    )
    layer_dim: int | None = option(
        None,
        "channels of one layer, for scalars of Allegro or a field by name. null: "
        "Allegro's `num_scalar_features`, or the whole field as one layer",
    )
    layer_weights: list[float] | None = option(
        None,
        "one weight per layer; 0 leaves a layer out. Layer 0 of Allegro is the "
        "two-body embedding. null: equal weights",
    )
    monitor: bool = option(True, "also measure each layer on the validation data")
    name: str = option(
        "edge_correlation", "name of the term in the loss, the logs and checkpoints"
    )

    def __post_init__(self) -> None:
        check_whole("layer_dim", self.layer_dim, least=1, null=True)
        check_switch("monitor", self.monitor)
        for name, value in (("features", self.features or ""), ("name", self.name)):
            if not isinstance(value, str):
                raise UserError(f"expected `{name}` to be a name, got {value!r}")
        check_layer_weights(as_list("layer_weights", self.layer_weights))

    def settings(self) -> dict[str, Any]:
        """All values in nested dictionaries, for loggers and checkpoints."""
        nested = {key: plain(value) for key, value in asdict(self).items()}
        nested["schedule"] = {"kind": self.schedule.kind, **nested["schedule"]}
        return nested


#: Options of earlier versions that have another name now.
RENAMED = {
    "horizon": "schedule.stop",
    "target": "schedule.level",
    "max_edges": "sample.edges",
    "max_channels": "sample.channels",
    "every_n_steps": "sample.every",
    "variance_floor": "penalty.floor",
    "field": "features",
    "layers": "layer_weights",
}


def read_options(given: Mapping[str, Any]) -> Options:
    """Read nested options, as a config has them; what is left out has its default.

    Without a schedule, defaults are those of the preset ``default``.

    Raises:
        UserError: for an unknown option, naming the nearest one, and for one that is
            out of range or that the kind of schedule does not have.
    """
    values = dict(given)
    for name in values:
        if name not in names_of(Options):
            raise _unknown(name)
    recommended = RECOMMENDED if values.get("schedule") is None else {}
    values["schedule"] = read_schedule(
        recommended.get("schedule", given.get("schedule"))
    )
    groups: tuple[tuple[str, type, str], ...] = (
        ("sample", Sample, "{edges: 1024, every: 1}"),
        ("penalty", Penalty, "{kind: square}"),
    )
    for group, cls, example in groups:
        options = read_mapping(group, values.get(group), example)
        for name in options:
            if name not in names_of(cls):
                raise _unknown(f"{group}.{name}")
        values[group] = build(cls, group, recommended.get(group, {}) | options)
    return Options(**{name: plain(value) for name, value in values.items()})


def read_schedule(given: Any) -> Schedule:
    """Read the options of a schedule.

    Raises:
        UserError: see :func:`read_options`.
    """
    options = read_mapping("schedule", given, "{kind: cosine, coeff: 3.0}")
    kind = options.pop("kind", Cosine.kind)
    check_choice("schedule.kind", kind, SCHEDULES)
    for name in options:
        if name in names_of(SCHEDULES[kind]):
            continue
        users = [each for each, cls in SCHEDULES.items() if name in names_of(cls)]
        if not users:
            raise _unknown(f"schedule.{name}")
        raise UserError(
            f"`schedule.{name}` is an option of {' and '.join(users)}, not of {kind}; "
            f"remove it, or change `schedule.kind`"
        )
    return build(SCHEDULES[kind], "schedule", options)


def all_names() -> list[str]:
    """Names of all options, with dots."""
    groups: dict[str, list[str]] = {
        "schedule": ["kind", *(n for cls in SCHEDULES.values() for n in names_of(cls))],
        "sample": names_of(Sample),
        "penalty": names_of(Penalty),
    }
    dotted = [f"{group}.{name}" for group in groups for name in groups[group]]
    return list(dict.fromkeys([*names_of(Options), *dotted]))


def _unknown(name: str) -> UserError:
    """The error for an unknown option: says where it is now, or the nearest name."""
    known = all_names()
    last = name.rpartition(".")[2]
    by_last = {each.rpartition(".")[2]: each for each in reversed(known)}
    if last in RENAMED:
        near = RENAMED[last]
    elif last in by_last:
        near = by_last[last]
    else:
        pool = {**by_last, **{each: each for each in known}}
        near = pool[get_close_matches(name, pool, n=1, cutoff=0)[0]]
    return UserError(f"unknown option `{name}`; did you mean `{near}`?")
