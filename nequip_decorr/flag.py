"""What ``+nequip_decorr=...`` puts into ``trainer._target_``: a Trainer factory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def build_trainer(
    *,
    decorr: Mapping[str, Any],
    base_target: str | None = None,
    callbacks: Any = None,
    **trainer_options: Any,
) -> Any:
    """Build the config's own Trainer with the decorrelation callback added.

    The option group sets two keys of the config, which is all that hydra can merge (it
    cannot append to the list of callbacks):

    .. code-block:: yaml

        trainer:
          _target_: nequip_decorr.build_trainer
          decorr:
            schedule: cosine
            coeff: 3.0

    Args:
        decorr: options of :class:`nequip_decorr.EdgeDecorrelation`.
        base_target: the Trainer class to build; None takes that of the config as it is
            without the option group, and ``lightning.Trainer`` where there is none: in
            a config that names this function itself, and outside hydra.
        callbacks: the config's own callbacks; one, several or None.
        **trainer_options: everything else of ``trainer``, passed on unchanged.

    Raises:
        ValueError: for an unknown option in ``decorr``, or one out of range.
    """
    from hydra.utils import get_object

    from ._options import plain
    from .callback import EdgeDecorrelation

    try:
        ours = EdgeDecorrelation(**{str(k): plain(v) for k, v in decorr.items()})
    except TypeError as error:
        raise ValueError(
            f"expected `trainer.decorr` to hold options of EdgeDecorrelation, got one "
            f"that it does not know ({error}); see its documentation"
        ) from error
    if callbacks is None:
        callbacks = []
    elif not isinstance(callbacks, Sequence):
        callbacks = [callbacks]
    ours.trainer_target = base_target or _configured_trainer() or ours.trainer_target
    trainer = get_object(ours.trainer_target)
    return trainer(callbacks=[*callbacks, ours], **trainer_options)


def _configured_trainer() -> str | None:
    """Trainer class of the running hydra application's config without our group."""
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if not (GlobalHydra.instance().is_initialized() and HydraConfig.initialized()):
        return None
    config = HydraConfig.get()
    group = str(__package__)
    # as typed: an interpolation in one, ${training_data_stats:...}, is not for us
    task: Any = OmegaConf.to_container(config.overrides.task, resolve=False)
    overrides = [str(override) for override in task]
    named = any(override.startswith(f"+{group}=") for override in overrides)
    ours = (f"{group}=", "trainer.decorr", "trainer.base_target")
    without = [o for o in overrides if not o.lstrip("+~").startswith(ours)]
    if group in config.runtime.choices and not named:  # under `defaults:`
        without.append(f"~{group}")
    composed = compose(config_name=config.job.config_name, overrides=without)
    target = OmegaConf.select(composed, "trainer._target_")
    # ours: written out in the config, by hand or by hydra when it saved one
    return None if target is None or target.startswith(f"{group}.") else str(target)
