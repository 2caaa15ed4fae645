"""``+nequip_decorr=...``: adds callbacks to the Trainer of a hydra application.

The option group fills the top-level key ``nequip_decorr`` of the config and does not
change ``trainer``. Lightning asks every installed package for callbacks when it builds
a Trainer (entry points ``lightning.pytorch.callbacks_factory``), so this works with any
Trainer class.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nequip_decorr.errors import UserError

if TYPE_CHECKING:
    from nequip_decorr.training.callback import EdgeDecorrelation

KEY = "nequip_decorr"


def configured_callbacks() -> list[EdgeDecorrelation]:
    """Callbacks configured in the running hydra application.

    Each top-level key ``nequip_decorr`` or ``nequip_decorr_...`` is a term with the
    options of :class:`nequip_decorr.EdgeDecorrelation`:

    .. code-block:: yaml

        nequip_decorr:
          schedule: {kind: cosine, coeff: 3.0}

    Outside hydra, and without such a key, the list is empty and nothing is imported.

    Raises:
        UserError: for an unknown option or one out of range, and when the group was
            chosen for another key.
    """
    hydra_config = sys.modules.get("hydra.core.hydra_config")
    if hydra_config is None or not hydra_config.HydraConfig.initialized():
        return []
    from omegaconf import OmegaConf

    hydra = hydra_config.HydraConfig.get()
    refuse_misplaced(choice for choice, name in hydra.runtime.choices.items() if name)
    config: Any = OmegaConf.select(hydra, "..")  # that of the application
    # resolve only ours: others need resolvers that NequIP has yet to register
    terms = {
        key: OmegaConf.to_container(config[key], resolve=True, throw_on_missing=True)
        if OmegaConf.is_config(config[key])
        else config[key]
        for key in map(str, config)
        if is_term(key) and config[key] is not None
    }
    return [new_callback(key, options) for key, options in terms.items()]


def is_term(key: str) -> bool:
    """Whether a top-level key of a config is a decorrelation term."""
    return key == KEY or key.startswith(f"{KEY}_")


def refuse_misplaced(choices: Iterable[str]) -> None:
    """Refuse a choice of the group (``nequip_decorr@package``) that is not a term.

    Raises:
        UserError: when the package is not a top-level key ``nequip_decorr...``.
    """
    for choice in choices:
        group, _, package = choice.partition("@")
        if group == KEY and package and not ("." not in package and is_term(package)):
            raise UserError(
                f"expected the options of group `{KEY}` at a top-level key `{KEY}` or "
                f"`{KEY}_...`, got them at `{package}`; choose it as "
                f"`/{KEY}@_global_.{KEY}`, for example"
            )


def new_callback(key: str, options: Any) -> EdgeDecorrelation:
    """The callback of one term.

    Raises:
        UserError: see :class:`nequip_decorr.EdgeDecorrelation`; names the key.
    """
    from nequip_decorr.training.callback import EdgeDecorrelation

    if not isinstance(options, Mapping):
        raise UserError(
            f"expected `{key}` to be options of EdgeDecorrelation, got {options!r}; "
            f"choose a preset by `+{KEY}=cosine`, or under `defaults:`"
        )
    try:
        return EdgeDecorrelation(**{str(name): v for name, v in options.items()})
    except UserError as error:
        raise UserError(f"`{key}`: {error}") from error
