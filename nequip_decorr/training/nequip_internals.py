"""What NequIP and Lightning do not promise about trainings; see also nequip_models.

:func:`check_names` compares :data:`RELIED_UPON` with the installed versions when a
training starts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib.metadata import PackageNotFoundError, version
from math import isnan
from operator import attrgetter
from pkgutil import resolve_name
from re import match
from typing import Any

from torch import nn

from nequip_decorr.errors import UserError

#: Versions that the package was tried with.
TRIED = {"nequip": "0.19.1", "nequip-allegro": "0.8.3", "lightning": "2.6"}

#: Names that may change without notice: of modules, and of the trainer and the training
#: module of a run.
RELIED_UPON = (
    "nequip.data.AtomicDataDict.NODE_FEATURES_KEY",
    "nequip.data.AtomicDataDict._key_registry.get_field_type",
    "nequip.data.register_fields",
    "nequip.train.ConFIGLightningModule",
    "nequip.train.MetricsManager.parse_entry",
    "nequip.train.callbacks.SoftAdapt",
    "nequip.utils.RankedLogger",
    "trainer._logger_connector.should_update_logs",
    "trainer.accumulate_grad_batches",
    "trainer.callback_metrics",
    "trainer.check_val_every_n_epoch",
    "trainer.ckpt_path",
    "trainer.limit_val_batches",
    "trainer.num_training_batches",
    "trainer.num_val_batches",
    "trainer.sanity_checking",
    "trainer.state.fn",
    "trainer.strategy.reduce",
    "training_module.hparams",
    "training_module.loss",
    "training_module.loss.do_weighted_sum",
    "training_module.loss.entries",
    "training_module.loss.metrics_values_epoch",
    "training_module.loss.metrics_values_step",
    "training_module.model",
    "training_module.val_metrics",
)


def check_names(trainer: Any, pl_module: Any) -> None:
    """Check that the installed NequIP and Lightning have all of ``RELIED_UPON``.

    Raises:
        UserError: names what is missing, the versions found and those tried.
    """
    roots = {"trainer": trainer, "training_module": pl_module}
    missing = []
    for name in RELIED_UPON:
        root, _, attributes = name.partition(".")
        if attributes.startswith("loss.") and getattr(pl_module, "loss", None) is None:
            continue
        try:
            if root in roots:
                attrgetter(attributes)(roots[root])
            else:
                resolve_name(name)
        except (AttributeError, ImportError):
            missing.append(name)
    if missing:
        raise UserError(
            f"this NequIP or Lightning lacks {', '.join(missing)}, which the "
            f"decorrelation term needs; found {_versions(_installed)}, tried with "
            f"{_versions(TRIED.get)}: install those, or a newer nequip-decorr"
        )


def _versions(find: Callable[[str], str | None]) -> str:
    return ", ".join(f"{name} {find(name)}" for name in TRIED)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def sole_model(pl_module: Any) -> nn.Module:
    """The model of a training module.

    Raises:
        UserError: when it has several.
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
        if not getattr(manager[name], "checked_by_callback", False):
            raise UserError(
                f"the config already has a metric called '{name}'; remove it, or set "
                f"another `name` for the decorrelation term"
            )
        # of a callback of an earlier training of this module
        manager.entries.pop(name, None)
        manager.pop(name)
    reserved = name == "weighted_sum" or hasattr(manager, name)
    if not name or "." in name or reserved:
        raise UserError(
            f"expected a `name` without dots that NequIP does not use itself, got "
            f"'{name}'; set for example edge_correlation"
        )
    name, entry, module = manager.parse_entry(
        {"name": name, "field": None, "metric": metric}, type_names=None
    )
    manager.entries[name] = entry
    manager.update({name: module})


def remove_metric(manager: Any, name: str, metric: nn.Module) -> None:
    """Inverse of :func:`add_metric`; does nothing if the metric is not there."""
    if name not in manager or manager[name] is not metric:
        return
    manager.pop(name)
    for values in (
        manager.entries,
        manager.metrics_values_step,
        manager.metrics_values_epoch,
    ):
        values.pop(name, None)


def set_coefficient(
    loss: Any, name: str, coeff: float, ours: Collection[str] = ()
) -> None:
    """Set the coefficient of one term of a loss and leave NequIP's own unchanged.

    ``set_coeffs`` would rescale all of them to sum to 1. If another callback has done
    so with decorrelation terms among them, NequIP's own are rescaled to sum to 1 again.
    A coefficient of 0 removes the term from the loss, so that it is not computed.

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
        # keep the order in which the terms were added: a restart begins with all of
        # them, and a sum in another order differs in its last bits
        for later in list(loss)[list(loss).index(name) + 1 :]:
            if later in entries:
                entries[later] = entries.pop(later)
    entries[name].coeff = coeff


def has_energy_term(loss: Any) -> bool:
    """Whether the gradient of the total energy is part of a loss now."""
    from nequip.data import AtomicDataDict

    return any(
        getattr(entry.field, "field", None) == AtomicDataDict.TOTAL_ENERGY_KEY
        and entry.coeff is not None
        and not entry.ignore_nan  # a batch may have no energies
        for entry in loss.entries.values()
    )


def validation_names(pl_module: Any) -> list[str]:
    """Names of the validation metrics that NequIP logs."""
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

    Names unlike NequIP's may be logged by other callbacks and are not checked.

    Raises:
        UserError: when there is no validation, or NequIP will not log the metric.
    """
    names = validation_names(pl_module)
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    too_rare = every is not None and epochs != -1 and every > epochs
    if trainer.limit_val_batches == 0 or not names or too_rare:
        raise UserError(
            f"schedule target needs validations for `schedule.guard_monitor` "
            f"'{monitor}', and this training has none; check its validation data, "
            f"trainer.limit_val_batches and trainer.check_val_every_n_epoch, or choose "
            f"another schedule"
        )
    if monitor not in names and match(r"val\d+_(epoch|step)/|train_", monitor):
        raise UserError(
            f"expected `schedule.guard_monitor` to be a validation metric, got "
            f"'{monitor}'; set it to one of {names}"
        )


def guarded_error(trainer: Any, monitor: str) -> float:
    """The logged metric that a controller guards, after a validation.

    Raises:
        UserError: when it was not logged.
    """
    logged = trainer.callback_metrics
    if monitor not in logged:
        raise UserError(
            f"expected `schedule.guard_monitor` to be a logged metric, got "
            f"'{monitor}'; set it to one of "
            f"{sorted(name for name in logged if name.startswith('val'))}"
        )
    return float(logged[monitor])


def last_value(loss: Any, name: str) -> float | None:
    """Value of a term in the last batch, as NequIP has copied it from the device."""
    value = loss.metrics_values_step.get(name)
    return None if value is None else float(value)


def value_without(loss: Any, names: Collection[str]) -> float:
    """Weighted sum of the terms of a loss in the last batch, but for ``names``.

    Of values that NequIP has copied from the device, and reduced over ranks but where
    :func:`differs_by_rank`. A term that leaves out missing labels (``ignore_nan``) is
    NaN in a batch without any, and has no gradient there.
    """
    values = loss.metrics_values_step
    return float(
        sum(
            entry.coeff * values[name]
            for name, entry in loss.entries.items()
            if name not in names
            and entry.coeff is not None
            and values.get(name) is not None
            and not (entry.ignore_nan and isnan(values[name]))
        )
    )


def differs_by_rank(loss: Any) -> bool:
    """Whether a term of a loss has the value of each rank's own batch.

    NequIP reduces the values of a step over ranks, but for those by atom type.
    """
    return any(entry.per_type for entry in loss.entries.values())


def will_log(trainer: Any) -> bool:
    """Whether Lightning writes this step to the loggers; calling log has a cost."""
    return bool(trainer._logger_connector.should_update_logs)


def refuse_unsupported(trainer: Any, pl_module: Any) -> None:
    """Refuse trainings in which the term cannot work.

    Raises:
        UserError: says why, and what to do.
    """
    from nequip.train import ConFIGLightningModule
    from nequip.train.callbacks import SoftAdapt

    if pl_module.loss is None:
        raise UserError(
            "cannot add a decorrelation term to `training_module.loss`, which is null; "
            "configure a loss, for example nequip.train.EnergyForceLoss"
        )
    if any(isinstance(callback, SoftAdapt) for callback in trainer.callbacks):
        raise UserError(
            "cannot combine SoftAdapt with a decorrelation term: SoftAdapt normalises "
            "all coefficients of the loss together, so neither would keep its own; "
            "remove SoftAdapt, or use LossCoefficientScheduler instead"
        )
    if isinstance(pl_module, ConFIGLightningModule):
        raise UserError(
            f"cannot combine {type(pl_module).__name__} with a decorrelation term: "
            f"ConFIG projects the gradients of the loss terms against each other, and "
            f"takes a coefficient of 0 as 'orthogonal to', not as 'off'; use "
            f"NequIPLightningModule or EMALightningModule"
        )


def rank_zero_logger(name: str) -> Any:
    """NequIP's logger for ``name``, which writes on rank 0 only."""
    from nequip.utils import RankedLogger

    return RankedLogger(name, rank_zero_only=True)
