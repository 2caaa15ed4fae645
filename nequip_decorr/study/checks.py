"""Checks made before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nequip_decorr.checks import check_choice
from nequip_decorr.errors import UserError
from nequip_decorr.study.compose import Composed, Composer, checkpoint_callbacks
from nequip_decorr.study.config import Simulation, Study
from nequip_decorr.study.stages import ERRORS
from nequip_decorr.study.tasks import Variant, test_names
from nequip_decorr.wording import counted, named

#: Key of a value; that of a section may be a group of configs as well.
VALUE_KEY = re.compile(r"\w+(\.\w+)*")

#: Value of a key that a config does not have.
MISSING = object()


def check_variants(composer: Composer, variants: Sequence[Variant]) -> None:
    """Refuse identical variants, and overrides without effect."""
    for variant in variants:
        name, overrides = variant.name, variant.overrides
        for override in overrides:
            key = override.partition("=")[0].lstrip("+~")
            if key in variant.seed_keys or key.startswith("hydra."):
                raise UserError(
                    f"expected overrides of the training in variant {name}, got "
                    f"{override}; the study sets seeds and folders"
                )
        if len(overrides) > 1:
            for index, override in enumerate(overrides):
                if not _changes(composer, variant, index):
                    raise UserError(
                        f"expected an override that changes something in variant "
                        f"{name}, got {override}; remove it"
                    )
    seen: dict[str, str] = {}
    for variant in variants:
        same = seen.setdefault(repr(variant.composed.config), variant.name)
        if same != variant.name:
            raise UserError(
                f"expected variants that differ, got {variant.name} and {same}, which "
                "are the same training; remove one or change its overrides"
            )


def _changes(composer: Composer, variant: Variant, index: int) -> bool:
    """Whether a variant is another training without one of its overrides.

    Composing takes its time. An override that sets a value which no other override
    touches is therefore compared with the value in a config that is composed once for
    all of them: the one without any override of a value.
    """
    overrides, config = variant.overrides, variant.composed.config
    base = _without(composer, ()) or {}
    keys = [_value_key(override, base) for override in overrides]
    key, others = keys[index], [*keys[:index], *keys[index + 1 :]]
    if key and not any(other and _overlap(key, other) for other in others):
        groups = [o for o, k in zip(overrides, keys, strict=True) if k is None]
        plain = _without(composer, groups)
        values = [_value(each, key) for each in (plain, config)]
        if plain is not None and values != [MISSING, MISSING]:
            return bool(values[0] != values[1])
    return _without(composer, [*overrides[:index], *overrides[index + 1 :]]) != config


def _value_key(override: str, base: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The key of an override that sets a value; None if it may choose a group."""
    key = override.partition("=")[0].lstrip("+~")
    if not VALUE_KEY.fullmatch(key):
        return None
    first, *rest = key.split(".")
    if not rest and isinstance(base.get(first, {}), Mapping):
        return None
    return (first, *rest)


def _overlap(key: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shorter = min(len(key), len(other))
    return key[:shorter] == other[:shorter]


def _value(config: Any, key: tuple[str, ...]) -> Any:
    for part in key:
        if not isinstance(config, Mapping) or part not in config:
            return MISSING
        config = config[part]
    return config


def _without(composer: Composer, overrides: Sequence[str]) -> dict[str, Any] | None:
    """The config with fewer overrides; None if it does not compose so."""
    try:
        return composer.plain(tuple(overrides))
    except UserError:
        return None


def check_checkpoints(composed: Composed) -> None:
    """Refuse checkpoints of averaged weights that NequIP could not load.

    Weights and their average are swapped during a validation. A ModelCheckpoint saves
    after it, at the end of a training epoch, only if every epoch has one validation;
    otherwise it saves while they are swapped, unless told when.
    """
    from omegaconf import OmegaConf

    config = composed.config
    if "EMA" not in str(config["training_module"].get("_target_")).rpartition(".")[2]:
        return
    resolved = OmegaConf.create(config)
    always = {"check_val_every_n_epoch": (1,), "val_check_interval": (1, None)}
    changed = [
        name
        for name, once in always.items()
        if OmegaConf.select(resolved, f"trainer.{name}", default=1) not in once
    ]
    for key in checkpoint_callbacks(config):
        after = OmegaConf.select(resolved, f"{key}.save_on_train_epoch_end")
        if after is False or (changed and after is None):
            because = "" if after is False else f" with trainer.{changed[0]}"
            raise UserError(
                f"set {key}.save_on_train_epoch_end to true: NequIP could not load its "
                f"checkpoints of averaged weights (EMA){because}"
            )


def check_data(composed: Composed) -> None:
    """Refuse training data that ase cannot read, if ase is what will read them."""
    if composed.reads_files:
        check_readable(composed.data_files, composed.data_format)


def check_readable(paths: Sequence[Path], data_format: str | None = None) -> None:
    """Refuse data that ase cannot read."""
    import ase.io

    for path in paths:
        try:
            ase.io.read(path, 0, format=data_format)
        except Exception as error:
            raise UserError(
                f"expected data that ase reads, got {path} ({named(error)})"
            ) from error


def check_test_sets(study: Study, variants: Sequence[Variant]) -> None:
    """Refuse test sets that cannot be read or that the data module does not accept."""
    for variant in variants:
        names = test_names(study, variant.composed)
        if len(set(names)) < len(names):
            raise UserError(
                "expected test sets with different names, got "
                f"{', '.join(names)}; give each a different name under `test:`, "
                "also different from those that are split from other data"
            )
    if not study.test:
        return
    if not all(v.composed.reads_files for v in variants):
        raise UserError(
            "expected `test:` with an ASEDataModule alone, got another data module in "
            f"{study.config}; leave it out to use the module's own test sets"
        )
    check_readable(tuple(study.test.values()), variants[0].composed.data_format)


def check_device(study: Study) -> None:
    """Refuse a GPU where tasks run on this machine, and it has none."""
    if study.executor.kind == "slurm" or not study.device.startswith("cuda"):
        return
    import torch

    count, number = torch.cuda.device_count(), int(study.device.partition(":")[2] or 0)
    if number >= count:
        raise UserError(
            f"expected a GPU for `device: {study.device}`, got {count} that torch can "
            "use on this machine; set `device: cpu`"
        )
    if number and study.executor.kind == "local":
        raise UserError(
            f"expected `device: cuda`, got {study.device}; each task sees the one GPU "
            "that it is given"
        )


def check_primary(study: Study, variants: Sequence[Variant]) -> None:
    """Refuse a primary question about a test set that there is none of."""
    primary = study.primary
    if primary is None or primary.test is None:
        return
    for variant in variants:
        known = test_names(study, variant.composed)
        # the number of test sets of other data modules is not known yet
        if variant.composed.lists_tests:
            check_choice("primary.test", primary.test, known)
    if not str(primary.metric).endswith(ERRORS):
        raise UserError(
            "expected a metric of the test, such as forces_rmse, for primary.metric, "
            f"got {primary.metric!r}; those whose names end with {', '.join(ERRORS)} "
            "are recorded"
        )


def notes_of(study: Study, composed: Composed) -> Iterator[str]:
    """Notes for the user before a long computation starts."""
    if not composed.resumes:
        yield (
            "no ModelCheckpoint has save_last: true, so a training that is interrupted "
            "starts again from its beginning"
        )
    if study.inspect is None and composed.inspect_file is None:
        yield (
            "the config names no validation data that ase reads, so correlations are "
            "not measured; name a file for them (inspect: FILE)"
        )
    primary = study.primary
    for simulation in study.md:
        if (
            primary is not None
            and primary.event == "explosion"
            and primary.condition in simulation.conditions
            and simulation.protocol.until == "first"
        ):
            yield (
                "the primary question is about explosions, but replicas of "
                f"md.{simulation.name} end at an unphysical geometry; set `until: "
                "explosion` there to get an answer"
            )
    if len(study.seeds) < 3:
        yield (
            f"{counted(len(study.seeds), 'seed')}: no interval or verdict; three is "
            "the fewest, eight a reasonable start"
        )


def check_simulation(simulation: Simulation, composed: Composed) -> list[str]:
    """Refuse structures that MD would refuse, and runs too short for a drift.

    Returns notes on the others.
    """
    from nequip_decorr.md.statistics.drift import MIN_SAMPLES, samples_of
    from nequip_decorr.md.statistics.rdf import read_reference
    from nequip_decorr.md.structures import start_structures

    protocol = simulation.protocol
    if simulation.is_drift and samples_of(protocol) < MIN_SAMPLES:
        raise UserError(
            f"md.{simulation.name}: expected at least {MIN_SAMPLES} recorded energies "
            f"after the warm-up, got {samples_of(protocol)}; run longer (horizon_ps), "
            "or record more often (record_interval_steps)"
        )
    try:
        starts, notes = start_structures(
            simulation.structures,
            protocol,
            species=composed.species,
            cutoff_A=composed.cutoff_A,
        )
        if simulation.reference is not None:
            read_reference(simulation.reference)
    except UserError as error:
        raise UserError(f"md.{simulation.name}: {error}") from error
    formulas = sorted({atoms.get_chemical_formula(empirical=True) for atoms in starts})
    if len(formulas) > 1 and not simulation.is_drift:
        notes.append(
            f"its structures have {len(formulas)} compositions but count as one "
            "condition; give each composition its own entry to tell them apart"
        )
    return [f"md.{simulation.name}: {note}" for note in notes]
