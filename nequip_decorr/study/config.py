"""Reads and checks ``study.yaml``.

Paths are relative to the folder of the YAML file. Variants may be any overrides
of ``nequip-train``; nothing here depends on what they change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nequip_decorr.checks import (
    check_choice,
    check_keys,
    check_mapping,
    check_switch,
    check_whole,
    is_whole,
    names_of,
)
from nequip_decorr.errors import UserError
from nequip_decorr.md.files import read_yaml
from nequip_decorr.md.presets import preset
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.results import KINDS
from nequip_decorr.paths import check_file, split_index, user_path
from nequip_decorr.study.executor_options import Executor, read_executor

#: Of variants, simulations and test sets: they become names of files.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")

#: For compilation and MD.
DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")

#: Keys of a simulation beside those of :class:`~nequip_decorr.md.Protocol`.
SIMULATION_KEYS = ("structures", "reference", "preset", "engine")


@dataclass(frozen=True)
class Simulation:
    """An MD simulation run with every model.

    Attributes:
        name: name in ``study.yaml``.
        structures: file of start structures.
        protocol: the MD protocol.
        reference: trajectory or table of pair distributions, or None.
        engine: ``ase`` or ``torchsim``.
    """

    name: str
    structures: Path
    protocol: Protocol
    reference: Path | None = None
    engine: str = "ase"

    @property
    def is_drift(self) -> bool:
        """Whether this simulation measures energy drift instead of stability."""
        return self.protocol.ensemble == "nve"

    @property
    def conditions(self) -> tuple[str, ...]:
        """One condition per temperature; conditions are never pooled."""
        return tuple(f"{self.name}@{t:g}K" for t in self.protocol.temperatures_K)


@dataclass(frozen=True)
class Primary:
    """The primary question, whose p-value is not corrected for multiple questions.

    Defined either by a condition and a kind of event (time to the event), or by a test
    set and a metric (error).
    """

    variant: str
    condition: str | None = None
    event: str | None = None
    test: str | None = None
    metric: str | None = None


@dataclass(frozen=True)
class Study:
    """The content of ``study.yaml``.

    Attributes:
        config: config file of ``nequip-train``.
        seeds: training seeds; models with the same seed are compared.
        variants: overrides by name; the first variant is the baseline.
        seed_keys: config keys set to the seed; None for every key called ``seed``.
        test: data files by name; None for the test sets of the config.
        inspect: data file on which correlations are measured; None for the
            validation data of the config, False to skip.
        md: simulations.
        compile: whether MD runs a compiled model instead of the checkpoint.
        device: device for compilation and MD.
        executor: where tasks run.
        primary: the primary question; None for an exploratory study, and without
            variants to compare or MD to ask about.
    """

    config: Path
    seeds: tuple[int, ...]
    variants: dict[str, tuple[str, ...]]
    seed_keys: tuple[str, ...] | None = None
    test: dict[str, Path] | None = None
    inspect: Path | bool | None = None
    md: tuple[Simulation, ...] = ()
    compile: bool = True
    device: str = "cpu"
    executor: Executor = field(default_factory=Executor)
    primary: Primary | None = None

    @property
    def baseline(self) -> str:
        """The variant with which the others are compared."""
        return next(iter(self.variants))


def read_study(path: str | Path) -> Study:
    """Read ``study.yaml``.

    Raises:
        UserError: if the file cannot be read, a key is unknown (with the nearest known
            one), or a value is invalid.
    """
    return study_of(read_mapping("a study", Path(path)), Path(path).parent)


def read_mapping(what: str, path: Path) -> Mapping[str, Any]:
    """A mapping in a YAML file.

    Raises:
        UserError: if the file cannot be read or contains something else.
    """
    return check_mapping(f"{what} in {path}", read_yaml(path, what))


def study_of(data: Mapping[str, Any], base: Path) -> Study:
    """A study from plain types; relative paths start at ``base``.

    Raises:
        UserError: as :func:`read_study`.
    """
    check_keys("study", data, names_of(Study))
    for key in ("config", "seeds", "variants"):
        if key not in data:
            raise UserError(f"expected `{key}:` in the study, got none; add it")
    read = _Reader(base)
    compiled, device = data.get("compile", True), data.get("device", "cpu")
    check_switch("compile", compiled)
    if not isinstance(device, str) or not DEVICE.fullmatch(device):
        raise UserError(f"expected a device such as cpu or cuda, got {device!r}")
    study = Study(
        config=read.file("config", data["config"]),
        seeds=_seeds(data["seeds"]),
        variants=_variants(data["variants"]),
        seed_keys=_strings("seed_keys", data.get("seed_keys")),
        test=_test_sets(read, data.get("test")),
        inspect=(
            False
            if data.get("inspect") is False
            else read.optional("inspect", data.get("inspect"), frames=True)
        ),
        md=_simulations(read, data.get("md")),
        compile=compiled,
        device=device,
        executor=read_executor(data.get("executor", "local")),
    )
    return replace(study, primary=_primary(study, data.get("primary")))


class _Reader:
    """Converts strings to paths."""

    def __init__(self, base: Path) -> None:
        self.base = base.resolve()

    def file(self, key: str, value: object, *, frames: bool = False) -> Path:
        """A file path; with ``frames``, ``file@0:10`` is allowed too."""
        if not isinstance(value, str):
            raise UserError(f"expected a file for `{key}`, got {value!r}")
        path = self.base / user_path(value)
        check_file(split_index(path)[0] if frames else path, f"a file for `{key}`")
        return path

    def optional(self, key: str, value: object, *, frames: bool = False) -> Path | None:
        return None if value is None else self.file(key, value, frames=frames)


def _check_name(what: str, name: object) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(
            f"expected letters, digits and . _ + - in the name of a {what}, got "
            f"{name!r}; rename it"
        )
    return name


def _strings(key: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise UserError(f"expected a list of strings for `{key}`, got {value!r}")
    return tuple(value)


def _seeds(value: object) -> tuple[int, ...]:
    """A list of seeds; 8 means 1, ..., 8."""
    if is_whole(value):
        check_whole("seeds", value, least=1)
        return tuple(range(1, int(str(value)) + 1))
    if not isinstance(value, list) or not value:
        raise UserError(f"expected a number of seeds or a list, got {value!r}")
    for seed in value:
        check_whole("each of the seeds", seed, least=0)
    if len(set(value)) < len(value):
        raise UserError(f"expected different seeds, got {value}; name each once")
    return tuple(value)


def _variants(value: object) -> dict[str, tuple[str, ...]]:
    data = check_mapping("variants", value)
    if not data:
        raise UserError("expected at least one variant, got none")
    return {
        _check_name("variant", name): _strings(f"variants.{name}", overrides or [])
        or ()
        for name, overrides in data.items()
    }


def _test_sets(read: _Reader, value: object) -> dict[str, Path] | None:
    if value is None:
        return None
    return {
        _check_name("test set", name): read.file(f"test.{name}", path)
        for name, path in check_mapping("test", value).items()
    }


def _simulations(read: _Reader, value: object) -> tuple[Simulation, ...]:
    """The simulations: one protocol (called md), several by name, or a file of them."""
    if value is None:
        return ()
    if isinstance(value, str):
        path = read.file("md", value)
        return _simulations(_Reader(path.parent), read_mapping("simulations", path))
    data = check_mapping("md", value)
    if "structures" in data:
        data = {"md": data}
    return tuple(_simulation(read, name, each) for name, each in data.items())


def _simulation(read: _Reader, name: object, value: object) -> Simulation:
    name = _check_name("simulation", name)
    data = dict(check_mapping(f"md.{name}", value))
    known = [*SIMULATION_KEYS, *names_of(Protocol)]
    check_keys(f"simulation md.{name}", data, known)
    own = {key: data.pop(key, None) for key in SIMULATION_KEYS}
    base = None if own["preset"] is None else preset(own["preset"])
    engine = own["engine"] or "ase"
    if engine not in ("ase", "torchsim"):
        raise UserError(
            f"expected ase or torchsim for md.{name}.engine, got {engine!r}"
        )
    try:
        protocol = Protocol.from_dict(data, base=base)
    except UserError as error:
        raise UserError(f"md.{name}: {error}") from error
    return Simulation(
        name,
        read.file(f"md.{name}.structures", own["structures"], frames=True),
        protocol,
        read.optional(f"md.{name}.reference", own["reference"]),
        engine,
    )


def _primary(study: Study, value: object) -> Primary | None:
    if value is False:
        return None
    others = list(study.variants)[1:]
    conditions = [c for s in study.md if not s.is_drift for c in s.conditions]
    if value is None:
        if not others or not conditions:
            return None
        return Primary(others[0], condition=conditions[0], event=KINDS[0])
    data = check_mapping("primary", value)
    check_keys("primary question", data, names_of(Primary))
    found = Primary(**{"variant": others[0] if others else "", **data})
    check_choice("primary.variant", found.variant, others)
    if found.test is not None or found.metric is not None:
        if found.condition or found.event or not (found.test and found.metric):
            raise UserError(
                "expected condition and event, or test and metric, in `primary`, got "
                f"{dict(data)}"
            )
        return found
    found = replace(
        found,
        condition=found.condition or next(iter(conditions), None),
        event=found.event or KINDS[0],
    )
    check_choice("primary.condition", found.condition, conditions)
    check_choice("primary.event", found.event, KINDS)
    return found
