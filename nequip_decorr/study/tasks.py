"""The tasks of a study: one command for each stage of each model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nequip_decorr.species import OPTION
from nequip_decorr.study import stages
from nequip_decorr.study.compose import Composed
from nequip_decorr.study.config import Simulation, Study


@dataclass(frozen=True)
class Task:
    """One command of one model.

    Attributes:
        stage: ``train``, ``test``, ``inspect``, ``compile`` or ``md-NAME``.
        variant: variant of the model.
        seed: training seed of the model.
        command: the command; :data:`.stages.CHECKPOINT` stands for the model.
        folder: output folder, in the folder of the study.
        needs: keys of the tasks whose results it needs.
        test_sets: names of the test sets (for ``test``).
    """

    stage: str
    variant: str
    seed: int
    command: tuple[str, ...]
    folder: str
    needs: tuple[str, ...] = ()
    test_sets: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name within the study."""
        return key_of(self.variant, self.seed, self.stage)


def key_of(variant: str, seed: int, stage: str) -> str:
    """Name of a task within its study."""
    return f"{variant}_{seed}.{stage}"


@dataclass(frozen=True)
class Variant:
    """A variant whose config has been composed.

    Attributes:
        name: name in ``study.yaml``.
        overrides: overrides for ``nequip-train``.
        composed: the composed config.
        seed_keys: config keys set to the seed.
        inspect_file: data on which correlations are measured, or None.
    """

    name: str
    overrides: tuple[str, ...]
    composed: Composed
    seed_keys: tuple[str, ...]
    inspect_file: Path | None


def protocol_path(folder: Path, simulation: str) -> Path:
    """Protocol file of a simulation, for ``nequip-decorr md``."""
    return folder / "protocols" / f"{simulation}.yaml"


def tasks_of_model(
    study: Study, variant: Variant, seed: int, study_folder: Path
) -> Iterator[Task]:
    """All tasks of one model, in order of their dependencies."""
    composed, name = variant.composed, variant.name
    own_folder = Path("models", f"{name}_{seed}")
    model = study_folder / own_folder

    def task(stage: str, command: Sequence[str], *needs: str) -> Task:
        keys = tuple(key_of(name, seed, need) for need in needs)
        names = test_names(study, composed) if stage == "test" else ()
        folder = str(own_folder / stage)
        return Task(stage, name, seed, tuple(command), folder, keys, names)

    seeds = [f"{key}={seed}" for key in variant.seed_keys]
    overrides = (*variant.overrides, *seeds)
    train = stages.nequip_train(
        study.config, model / "train", *overrides, "run=[train]"
    )
    yield task("train", train)
    if study.test or composed.test_sets or not composed.lists_tests:
        test = stages.test_overrides(
            composed.has_logger,
            composed.has_test_metrics,
            list(study.test.values()) if study.test else None,
            model / "test",
        )
        command = stages.nequip_train(study.config, model / "test", *overrides, *test)
        yield task("test", command, "train")
    if variant.inspect_file is not None:
        out = model / "inspect" / "inspect.json"
        options = (stages.CHECKPOINT, variant.inspect_file, "--json", out)
        device = ("--device", study.device)
        yield task(
            "inspect", stages.nequip_decorr("inspect", *options, *device), "train"
        )
    compiled = {}
    if study.compile:
        for engine in dict.fromkeys(s.engine for s in study.md):
            stage = "compile" if engine == "ase" else f"compile-{engine}"
            command = stages.nequip_compile(model / stage, study.device, engine)
            yield task(stage, command, "train")
            compiled[engine] = stage
    for simulation in study.md:
        own = compiled.get(simulation.engine)
        path = (
            stages.CHECKPOINT
            if own is None
            else str(stages.compiled_model(model / own))
        )
        needs = ("train",) if own is None else ("train", own)
        stage = f"md-{simulation.name}"
        arguments = _md_arguments(study, simulation, path, model / stage, study_folder)
        if own is not None and composed.species_map:
            # the checkpoint has the map, and a compiled model has not
            pairs = composed.species_map.items()
            arguments += [OPTION, *(f"{element}={name}" for element, name in pairs)]
        yield task(stage, stages.nequip_decorr("md", *arguments), *needs)


def _md_arguments(
    study: Study, simulation: Simulation, model: str, out: Path, study_folder: Path
) -> list[object]:
    arguments: list[object] = [model, simulation.structures]
    arguments += ["--protocol", protocol_path(study_folder, simulation.name)]
    arguments += ["--engine", simulation.engine, "--device", study.device, "--out", out]
    if simulation.reference is not None:
        arguments += ["--reference", simulation.reference]
    return arguments


def test_names(study: Study, composed: Composed) -> tuple[str, ...]:
    """Test sets in NequIP's order; files in the study replace those of the config."""
    given = tuple(study.test) if study.test else composed.test_files
    return (*given, *composed.test_splits)
