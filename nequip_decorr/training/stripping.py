"""Removes what would be left of the callback in checkpoints and packages."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def strip_checkpoint(
    checkpoint: dict[str, Any], name: str, places: Collection[str]
) -> None:
    """Remove a term from the metric states of a checkpoint.

    The remaining coefficients sum to 1, so that restoring them, with or without the
    term, gives exactly the saved values.

    Args:
        checkpoint: of Lightning.
        name: of the term.
        places: attributes of the training module that have the term; elsewhere, a
            metric of that name is the user's own.
    """
    state = checkpoint["state_dict"]
    for key, extra in state.items():
        ours = key.partition(".")[0] in places
        if not (ours and key.endswith("_extra_state") and isinstance(extra, dict)):
            continue
        if "coeff_dict" in extra:
            state[key] = {
                field: {k: v for k, v in values.items() if k != name}
                for field, values in extra.items()
            }


def strip_hyperparameters(pl_module: Any, package: str) -> None:
    """Remove callbacks of the package from a module's hyper-parameters.

    NequIP copies the trainer's config into every checkpoint and package. Lightning's
    loggers and hydra's ``.hydra/config.yaml`` keep the config as it was.
    """
    info = pl_module.hparams.get("info_dict")
    if not info or not isinstance(info.get("trainer"), dict):
        return
    trainer = dict(info["trainer"])
    callbacks = trainer.get("callbacks")
    if isinstance(callbacks, dict) and "_target_" in callbacks:
        callbacks = [callbacks]  # Lightning takes one as well as a list

    def stays(callback: Any) -> bool:
        target = callback.get("_target_") if isinstance(callback, dict) else None
        return not str(target).startswith(package + ".")

    if isinstance(callbacks, dict):  # for a Trainer of the user's own
        trainer["callbacks"] = {k: v for k, v in callbacks.items() if stays(v)}
    elif callbacks:
        trainer["callbacks"] = [callback for callback in callbacks if stays(callback)]
    info["trainer"] = trainer
