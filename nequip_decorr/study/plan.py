"""The plan of a study: a task for each stage of each model, and its identity."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.md.files import file_sha256
from nequip_decorr.paths import split_index
from nequip_decorr.study.checks import (
    check_checkpoints,
    check_data,
    check_device,
    check_primary,
    check_simulation,
    check_test_sets,
    check_variants,
    notes_of,
)
from nequip_decorr.study.compose import Composer
from nequip_decorr.study.config import Study
from nequip_decorr.study.tasks import Task, Variant, tasks_of_model


@dataclass(frozen=True)
class Plan:
    """A study that has been checked.

    Attributes:
        identity: everything that must not change during a study (seeds may be added).
        seeds: training seeds.
        tasks: tasks of all models, in starting order.
        files: SHA-256 of each input file.
        notes: notes for the user before the study starts.
    """

    identity: dict[str, Any]
    seeds: tuple[int, ...]
    tasks: tuple[Task, ...]
    files: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def checksum(self) -> str:
        """SHA-256 of the identity."""
        return checksum(self.identity)


def checksum(identity: Mapping[str, Any]) -> str:
    """SHA-256 of plain types, independent of the order of keys."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def make_plan(
    study: Study, folder: Path, digest: Callable[[Path], str] | None = None
) -> Plan:
    """Compose and check everything, and list the tasks.

    Args:
        study: the requested study.
        folder: folder of the study, in which tasks write.
        digest: function that returns the SHA-256 of a file (may use a cache).

    Raises:
        UserError: if hydra cannot compose the config or a variant, variants or
            overrides change nothing, there is no seed to set, data cannot be read, or
            MD would refuse the start structures.
    """
    check_device(study)
    composer = Composer(study.config)
    variants = [_variant(study, composer, name) for name in study.variants]
    check_variants(composer, variants)
    for variant in variants:
        check_data(variant.composed)
        check_checkpoints(variant.composed)
    check_test_sets(study, variants)
    check_primary(study, variants)
    first = variants[0].composed
    notes = list(notes_of(study, first))
    for simulation in study.md:
        notes += check_simulation(simulation, first)
    digest = digest or file_sha256
    files = {str(p): digest(p) for p in dict.fromkeys(_files(study, variants))}
    # what they say is part of the composed configs
    sources = {str(p): digest(p) for v in variants for p in v.composed.sources}
    tasks = [
        task
        for seed in study.seeds
        for variant in variants
        for task in tasks_of_model(study, variant, seed, folder)
    ]
    return Plan(
        identity=_identity(study, variants, files),
        seeds=study.seeds,
        tasks=tuple(tasks),
        files={**sources, **files},
        notes=tuple(notes),
    )


def _variant(study: Study, composer: Composer, name: str) -> Variant:
    composed = composer.compose(study.variants[name])
    keys = composed.seed_keys if study.seed_keys is None else study.seed_keys
    if not keys:
        raise UserError(
            f"expected a key called seed in {study.config}, got none; list the keys "
            "to set (seed_keys: [...])"
        )
    if study.seed_keys is not None:  # hydra refuses those that are not there
        seeds = [f"{key}={study.seeds[0]}" for key in keys]
        composer.plain((*study.variants[name], *seeds))
    inspect_file = composed.inspect_file if study.inspect is None else study.inspect
    return Variant(
        name=name,
        overrides=study.variants[name],
        composed=composed,
        seed_keys=keys,
        inspect_file=inspect_file if isinstance(inspect_file, Path) else None,
    )


def _files(study: Study, variants: Sequence[Variant]) -> Iterator[Path]:
    yield study.config.resolve()
    for variant in variants:
        yield from variant.composed.data_files
        if variant.inspect_file is not None:
            yield split_index(variant.inspect_file)[0]
    yield from (study.test or {}).values()
    for simulation in study.md:
        yield split_index(simulation.structures)[0]
        if simulation.reference is not None:
            yield simulation.reference


def _identity(
    study: Study, variants: Sequence[Variant], files: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that the answers depend on besides the seeds, in plain types.

    Files are named relative to the config, so that all of it may be moved.
    """
    base = study.config.parent.resolve()

    def named(path: Path) -> str:
        return os.path.relpath(path, base)

    found = {
        "baseline": study.baseline,
        "variants": {
            variant.name: {
                "overrides": list(variant.overrides),
                "seed_keys": list(variant.seed_keys),
                "config": _without_seeds(variant.composed.config, variant.seed_keys),
            }
            for variant in variants
        },
        "test": {name: named(path) for name, path in (study.test or {}).items()},
        "inspect": (
            named(study.inspect) if isinstance(study.inspect, Path) else study.inspect
        ),
        "md": {
            s.name: {
                "structures": named(s.structures),
                "reference": None if s.reference is None else named(s.reference),
                "engine": s.engine,
                "protocol": s.protocol.to_dict(),
            }
            for s in study.md
        },
        "compile": study.compile,
        "device": study.device,
        "primary": None if study.primary is None else asdict(study.primary),
        "files": {named(Path(path)): digest for path, digest in files.items()},
    }
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def _without_seeds(config: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(config))
    for key in keys:
        *parents, last = key.split(".")
        node = copy
        for parent in parents:
            node = node.get(parent) or {}
        node.pop(last, None)
    return copy
