"""``+nequip_decorr=...``: gives the Trainer of a hydra application its callbacks.

The option group fills the top-level key ``nequip_decorr`` of the config and leaves
``trainer`` alone. Lightning asks every installed package for callbacks when it builds a
Trainer (entry points ``lightning.pytorch.callbacks_factory``), so that the Trainer may
be of any class.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from inspect import signature
from typing import TYPE_CHECKING, Any

from nequip_decorr.errors import UserError

if TYPE_CHECKING:
    from nequip_decorr.training.callback import EdgeDecorrelation

KEY = "nequip_decorr"


def configured_callbacks() -> list[EdgeDecorrelation]:
    """Callbacks that the config of the running hydra application asks for.

    Each top-level key ``nequip_decorr`` or ``nequip_decorr_...`` is a term with the
    options of :class:`nequip_decorr.EdgeDecorrelation`:

    .. code-block:: yaml

        nequip_decorr:
          schedule: cosine
          coeff: 3.0

    Outside hydra, and without such a key, there are none, and nothing is imported.

    Raises:
        UserError: for an unknown option or one out of range, and when the group was
            put where nobody reads it.
    """
    hydra_config = sys.modules.get("hydra.core.hydra_config")
    if hydra_config is None or not hydra_config.HydraConfig.initialized():
        return []
    from omegaconf import OmegaConf

    hydra = hydra_config.HydraConfig.get()
    refuse_misplaced(choice for choice, name in hydra.runtime.choices.items() if name)
    config: Any = OmegaConf.select(hydra, "..")  # what the application runs with
    # only ours: NequIP has yet to register some resolvers that others need
    terms = {
        key: OmegaConf.to_container(config[key], resolve=True, throw_on_missing=True)
        if OmegaConf.is_config(config[key])
        else config[key]
        for key in map(str, config)
        if is_term(key) and config[key] is not None
    }
    return [new_callback(key, options) for key, options in terms.items()]


def is_term(key: str) -> bool:
    """Whether a top-level key of a config is a term of ours."""
    return key == KEY or key.startswith(f"{KEY}_")


def refuse_misplaced(choices: Iterable[str]) -> None:
    """Refuse a choice of the group (``nequip_decorr@package``) that is not a term.

    Raises:
        UserError: when the options are elsewhere than at a top-level key of ours.
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
        UserError: for options that are none of ``EdgeDecorrelation`` or out of range.
    """
    from nequip_decorr.training.callback import EdgeDecorrelation

    if not isinstance(options, Mapping):
        raise UserError(
            f"expected `{key}` to hold options of EdgeDecorrelation, got {options!r}; "
            f"a preset is chosen by `+{KEY}=cosine`, or under `defaults:`"
        )
    known = list(signature(EdgeDecorrelation).parameters)
    for name in options:
        if name not in known:
            near = get_close_matches(str(name), known, n=1, cutoff=0)[0]
            raise UserError(
                f"expected `{key}` to hold options of EdgeDecorrelation, got "
                f"'{name}'; the nearest one is '{near}'"
            )
    return EdgeDecorrelation(**options)
