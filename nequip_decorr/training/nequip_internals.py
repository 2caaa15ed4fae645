"""The only place that touches what NequIP, Allegro and Lightning do not promise.

Tried with nequip 0.19.1 and nequip-allegro 0.8.3. The module's tests fail when one of
these names moves.
"""

from __future__ import annotations

from collections.abc import Collection
from re import match
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
    """The Allegro layers of a model, or None.

    By attributes, since classes of a packaged model are not those of the environment.
    """
    module: Any = _allegro_module(model)
    if module is None:
        return None
    return AllegroLayers(str(module.scalar_out_field), int(module.num_scalar_features))


class Output(NamedTuple):
    """Features that a module of a model computes.

    Attributes:
        module: the module.
        irreps: what the features are made of, as e3nn writes it.
        strided: number of channels, where the layout is Allegro's (rows, channels,
            components); None for e3nn's.
        pick: takes them from the positional inputs and the output of the module.
    """

    module: nn.Module
    irreps: str
    strided: int | None = None
    pick: Pick = output


def radial_weights(model: nn.Module) -> list[Output]:
    """What weights the tensor product of each interaction block of a NequIP GNN."""
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
                f"expected tensor products that form messages, got the fused kernel "
                f"{type(block.tp_scatter).__name__}; take `features: radial`, or train "
                f"without the kernel"
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
    """Have a ``GraphModel`` return features that its modules compute.

    Hooks on the modules keep them, and one on the whole writes them into the data
    before the model returns. All run while NequIP traces a model for compilation, so
    that the features are outputs of the compiled model too; once compiled, they stay.
    The model's state and its classes are not touched.

    Args:
        model: the model of a training.
        outputs: by key of the new field.
        kind: what its rows are, ``edge`` or ``node``.
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


def sole_model(pl_module: Any) -> nn.Module:
    """The model of a training module.

    Raises:
        UserError: when it holds several.
    """
    models = list(pl_module.model.values())
    if len(models) != 1:
        raise UserError(
            f"expected a training module with one model, got {len(models)}: "
            f"{list(pl_module.model)}; decorrelate one model at a time"
        )
    model: nn.Module = models[0]
    return model


def add_metric(manager: Any, name: str, metric: nn.Module) -> None:
    """Add a metric without a coefficient to a ``MetricsManager``.

    Raises:
        UserError: when the manager has another metric of that name, or cannot have
            one.
    """
    if name in manager.entries or name in manager:
        if manager[name] is metric:
            return
        raise UserError(
            f"expected no metric called '{name}' in the config, got one; remove it, or "
            f"set another `name` for the decorrelation term"
        )
    reserved = name == "weighted_sum" or hasattr(manager, name)
    if not name or "." in name or reserved:
        raise UserError(
            f"expected a `name` without dots that NequIP has no other use for, got "
            f"'{name}'; set for example edge_correlation"
        )
    name, entry, module = manager.parse_entry(
        {"name": name, "field": None, "metric": metric}, type_names=None
    )
    manager.entries[name] = entry
    manager.update({name: module})


def set_coefficient(
    loss: Any, name: str, coeff: float, ours: Collection[str] = ()
) -> None:
    """Give one term of a loss a coefficient; NequIP's own stay as they are without it.

    ``set_coeffs`` would rescale all to sum 1. Where somebody else did so with terms of
    ours among them, NequIP's own get their sum of 1 back. A coefficient of 0 takes the
    term out of the loss: nothing of it is computed.

    Args:
        loss: a ``MetricsManager``.
        name: of the term.
        coeff: its coefficient.
        ours: names of all decorrelation terms, whose coefficients are set likewise.
    """
    entries = loss.entries
    others = [
        e
        for n, e in entries.items()
        if n != name and n not in ours and e.coeff is not None
    ]
    total = sum(entry.coeff for entry in others)
    if others and total > 0 and abs(total - 1.0) > 1e-9:
        for entry in others:
            entry.coeff = entry.coeff / total
    if coeff == 0:
        entries.pop(name, None)
        return
    if name not in entries:
        _, entries[name], _ = loss.parse_entry(
            {"name": name, "field": None, "metric": loss[name]}, type_names=None
        )
        # always in the order in which they were added: a sum in another order differs
        # in its last bits, and a restart begins with all of them
        for later in list(loss)[list(loss).index(name) + 1 :]:
            if later in entries:
                entries[later] = entries.pop(later)
    entries[name].coeff = coeff


def validation_names(pl_module: Any) -> list[str]:
    """Names under which NequIP logs what it measures in validation."""
    names = []
    for index, manager in enumerate(pl_module.val_metrics):
        if manager is None:
            continue
        logged = ["weighted_sum"] if manager.do_weighted_sum else []
        for name, entry in manager.entries.items():
            types = manager.type_names if entry.per_type else []
            logged += [name, *(f"{name}_{each}" for each in types)]
        names += [f"val{index}_epoch/{name}" for name in logged]
    return names


def check_guard(trainer: Any, pl_module: Any, monitor: str) -> None:
    """Check the metric that a controller guards, before the first validation.

    A name that NequIP would not give, which others may log, is not looked for.

    Raises:
        UserError: when there is no validation, or NequIP will not log the metric.
    """
    names = validation_names(pl_module)
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    too_rare = every is not None and epochs != -1 and every > epochs
    if trainer.limit_val_batches == 0 or not names or too_rare:
        raise UserError(
            f"expected validations for `guard_monitor` '{monitor}' of schedule target, "
            f"got none in this training; see its validation data, "
            f"trainer.limit_val_batches and trainer.check_val_every_n_epoch, or choose "
            f"another schedule"
        )
    if monitor not in names and match(r"val\d+_(epoch|step)/|train_", monitor):
        raise UserError(
            f"expected `guard_monitor` to be a validation metric, got '{monitor}'; set "
            f"it to one of {names}"
        )


def last_value(loss: Any, name: str) -> float | None:
    """Value of a term in the last batch, which NequIP has read from the device."""
    value = loss.metrics_values_step.get(name)
    return None if value is None else float(value)


def will_log(trainer: Any) -> bool:
    """Whether Lightning hands this step to the loggers; logging costs at every step."""
    return bool(trainer._logger_connector.should_update_logs)


def strip_checkpoint(checkpoint: dict[str, Any], name: str) -> None:
    """Remove a term from the metric states of a checkpoint.

    Without it the coefficients in there sum to 1, so that restoring them, with or
    without the term, gives exactly what was saved.
    """
    state = checkpoint["state_dict"]
    for key, extra in state.items():
        if not (key.endswith("_extra_state") and isinstance(extra, dict)):
            continue
        if "coeff_dict" in extra:
            state[key] = {
                field: {k: v for k, v in values.items() if k != name}
                for field, values in extra.items()
            }


def strip_hyperparameters(pl_module: Any, package: str) -> None:
    """Leave callbacks of the package out of the trainer in a module's hyper-parameters.

    NequIP copies them into every checkpoint and package. Lightning's loggers and
    hydra's ``.hydra/config.yaml`` keep what was configured.
    """
    info = pl_module.hparams.get("info_dict")
    if not info or not isinstance(info.get("trainer"), dict):
        return
    trainer = dict(info["trainer"])
    callbacks = trainer.get("callbacks")
    if isinstance(callbacks, dict):
        callbacks = [callbacks]  # Lightning takes one as well as a list
    if callbacks:
        trainer["callbacks"] = [
            callback
            for callback in callbacks
            if not str(callback.get("_target_", "")).startswith(package + ".")
        ]
    info["trainer"] = trainer


def refuse_unsupported(trainer: Any, pl_module: Any) -> None:
    """Refuse what cannot work together with a term whose coefficient is set outside.

    Raises:
        UserError: says why, and what to do.
    """
    from nequip.train import ConFIGLightningModule
    from nequip.train.callbacks import SoftAdapt

    if any(isinstance(callback, SoftAdapt) for callback in trainer.callbacks):
        raise UserError(
            "expected no SoftAdapt callback beside the decorrelation term: SoftAdapt "
            "mixes all coefficients of the loss in one softmax, so neither would keep "
            "its own; remove SoftAdapt, or use LossCoefficientScheduler instead"
        )
    if isinstance(pl_module, ConFIGLightningModule):
        raise UserError(
            f"expected a training module with one loss, got "
            f"{type(pl_module).__name__}: ConFIG projects the gradients of the loss "
            f"terms against each other and reads a coefficient of 0 as 'orthogonal "
            f"to', not as 'off'; use NequIPLightningModule or EMALightningModule"
        )


def rank_zero_logger(name: str) -> Any:
    """NequIP's own logger for ``name``: info lines on rank 0 only."""
    from nequip.utils import RankedLogger

    return RankedLogger(name, rank_zero_only=True)
