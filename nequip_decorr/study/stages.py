"""The stages of a model: the command of each, and the results kept from its output.

All stages use the commands available to users: ``nequip-train``, ``nequip-compile``
and ``nequip-decorr``. A command may name :data:`CHECKPOINT`, which is known once the
model is trained.
"""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.study.checkpoints import best_checkpoint, resumable_checkpoint

#: Where the commands of this environment usually are.
BIN = Path(sys.executable).parent

#: In a command: the best checkpoint of the training.
CHECKPOINT = "{checkpoint}"

#: Errors among the metrics of a test: what their names end with.
ERRORS = ("_rmse", "_mae", "_maxabserr", "_huber")

#: Results that are paths, in the folder of the stage.
PATHS = ("checkpoint", "file", "model")

#: Of a pair distribution: distance from the reference, and what scatter explains.
PAIR_ERRORS = ("error", "standard_error", "reference_error", "floor")

#: Of an inspected layer: too long for a record.
MATRICES = ("correlation", "eigenvalues")


def quoted(value: object) -> str:
    """Quote any string for hydra's override grammar.

    It takes a backslash as one, except before a quote.
    """
    text = re.sub(
        r"(\\*)('|\Z)",
        lambda found: 2 * found[1] + found[2].replace("'", "\\'"),
        str(value),
    )
    return f"'{text}'"


def executable(name: str) -> str:
    """Path of a command of this environment.

    Raises:
        UserError: if there is none.
    """
    found = shutil.which(name, path=str(BIN)) or shutil.which(name)
    if found is None:
        raise UserError(
            f"expected the command {name} in {BIN} or on the PATH, got none; install "
            "it in the environment of this Python"
        )
    return found


def nequip_train(config: Path, folder: Path, *overrides: str) -> tuple[str, ...]:
    """``nequip-train`` with its output in ``folder``."""
    return (
        *(executable("nequip-train"), "-cp", str(config.parent), "-cn", config.stem),
        f"hydra.run.dir={quoted(folder)}",
        *overrides,
    )


def test_overrides(
    has_logger: bool, has_test_metrics: bool, files: Sequence[Path] | None, folder: Path
) -> tuple[str, ...]:
    """Overrides that turn a training into a test: the trained model and a CSV log.

    Args:
        has_logger: whether the config has a logger, which is then replaced.
        has_test_metrics: whether it has test metrics; otherwise those of the validation
            are used.
        files: test sets that replace those of the config.
        folder: folder of the test.
    """
    logger = (
        "{_target_: lightning.pytorch.loggers.CSVLogger, "
        f"save_dir: {quoted(folder)}, name: null, version: ''}}"
    )
    model = (
        "{_target_: nequip.model.ModelFromCheckpoint, "
        f"checkpoint_path: {quoted(CHECKPOINT)}}}"
    )
    found = ["run=[test]"]
    if has_logger:
        found.append("~trainer.logger")
    found += [f"+trainer.logger={logger}"]
    if not has_test_metrics:
        metrics = "${training_module.val_metrics}"
        found.append(f"++training_module.test_metrics={metrics}")
    if files is not None:
        listed = ", ".join(quoted(path) for path in files)
        found.append(f"++data.test_file_path=[{listed}]")
    return (*found, "~training_module.model", f"+training_module.model={model}")


def nequip_compile(folder: Path, device: str, engine: str) -> tuple[str, ...]:
    """``nequip-compile`` for MD with an engine; the result is moved when complete."""
    target = "batch" if engine == "torchsim" else "ase"
    return (
        *(executable("nequip-compile"), CHECKPOINT, str(partial_model(folder))),
        *("--device", device, "--mode", "aotinductor", "--target", target),
    )


def partial_model(folder: Path) -> Path:
    """Path of the compiled model while it is being written."""
    return folder / "partial.nequip.pt2"


def compiled_model(folder: Path) -> Path:
    """The compiled model."""
    return folder / "model.nequip.pt2"


def nequip_decorr(command: str, *arguments: object) -> tuple[str, ...]:
    """``nequip-decorr``."""
    return (executable("nequip-decorr"), command, *map(str, arguments))


def prepare(stage: str, command: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Prepare folder and command, so that a stage starts afresh or resumes.

    A training resumes from its last checkpoint. Without one it starts in an empty
    folder: Lightning would write ``best-v1.ckpt`` beside the best of another training.
    """
    if stage == "train":
        last = resumable_checkpoint(folder)
        if last is not None:
            return (*command, f"++ckpt_path={quoted(last)}")
        shutil.rmtree(folder, ignore_errors=True)
    elif not stage.startswith("md-"):
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(command)


def harvest(stage: str, folder: Path, test_sets: Sequence[str]) -> dict[str, Any]:
    """Results of a stage, to be kept in its record; paths are relative to ``folder``.

    Raises:
        UserError: if the command did not leave the expected files, or errors of a test
            are not finite.
    """
    try:
        if stage == "train":
            return {"checkpoint": str(best_checkpoint(folder).relative_to(folder))}
        if stage == "test":
            return {"errors": test_errors(folder / "metrics.csv", test_sets)}
        if stage == "inspect":
            return inspected(folder / "inspect.json")
        if stage.startswith("compile"):  # one for each engine
            partial_model(folder).replace(compiled_model(folder))
            return {"model": compiled_model(folder).name}
        return simulated(folder)
    except UserError:
        raise
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"expected the files of a finished {stage} in {folder}, got "
            f"{type(error).__name__}: {error}"
        ) from error


def placed(result: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Results with their paths relative to the study, whose folder may be moved."""
    return {
        name: str(Path(folder, value)) if name in PATHS else value
        for name, value in result.items()
    }


def test_errors(log: Path, test_sets: Sequence[str]) -> dict[str, dict[str, float]]:
    """Errors on each test set, in the config's units, from Lightning's CSV log.

    Metrics that are called by :data:`ERRORS`; if there are none, because all have names
    of the user's own, every one of them but the weighted sum.
    """
    with log.open() as handle:
        rows = list(csv.DictReader(handle))
    logged: dict[str, dict[str, float]] = {}
    for row in rows:
        for column, value in row.items():
            logs = re.fullmatch(r"(test(\d+))_epoch/(.+)", column)
            if not value or logs is None or logs[3] == "weighted_sum":
                continue
            place, index, metric = logs[1], int(logs[2]), logs[3]
            name = test_sets[index] if index < len(test_sets) else place
            logged.setdefault(name, {})[metric] = float(value)
    usual = {
        name: {m: value for m, value in metrics.items() if m.endswith(ERRORS)}
        for name, metrics in logged.items()
    }
    found = usual if any(usual.values()) else logged
    if not found:
        raise UserError(f"expected errors of a test in {log}, got none")
    for name, errors in found.items():
        for metric, error in errors.items():
            if not math.isfinite(error):
                raise UserError(
                    f"expected finite errors, got {metric} = {error} on {name}; the "
                    "training has diverged"
                )
    return found


def inspected(path: Path) -> dict[str, Any]:
    """Numbers of each layer; the matrices stay in the file."""
    data = json.loads(path.read_text(encoding="utf-8"))
    layers = [
        {name: value for name, value in layer.items() if name not in MATRICES}
        for layer in data["layers"]
    ]
    return {"field": data["field"], "layers": layers, "file": path.name}


def simulated(folder: Path) -> dict[str, Any]:
    """One entry per replica, energy drift, and errors of pair distributions."""
    from nequip_decorr.md.results import RESULT_NAME, load

    result = load(folder / RESULT_NAME)
    fidelity: Mapping[str, Any] = result.fidelity or {}
    return {
        "horizon_ps": result.horizon_ps,
        "timestep_fs": result.timestep_fs,
        "replicas": [_replica(replica) for replica in result.replicas],
        "drift": _drift(result) if result.ensemble == "nve" else [],
        "rdf": [
            {
                "formula": distribution["formula"],
                "temperature_K": distribution["temperature_K"],
                "pair": pair,
                **{name: values[name] for name in PAIR_ERRORS},
            }
            for distribution in fidelity.get("distributions", [])
            for pair, values in distribution["pairs"].items()
        ],
    }


def _drift(result: Any) -> list[dict[str, Any] | None]:
    # SciPy's statistics take longer to import than all else after a simulation
    from nequip_decorr.md.statistics.drift import Drift, run_drift

    return [
        asdict(drift) if isinstance(drift, Drift) else None
        for drift in run_drift(result).values()
    ]


def _replica(replica: Any) -> dict[str, Any]:
    return {
        "structure": replica.structure,
        "formula": replica.formula,
        "temperature_K": replica.temperature_K,
        "seed": replica.seed,
        "time_ps": replica.time_ps,
        "censored_by": replica.censored_by,
        **dict(_events(replica)),
    }


def _events(replica: Any) -> Iterator[tuple[str, Any]]:
    """Time and cause of each kind of event, or how long the replica was followed."""
    from nequip_decorr.md.results import KINDS

    for kind in KINDS:
        event = replica.event(kind)
        time_ps, happened = replica.followed(kind)
        yield (
            kind,
            {
                "time_ps": time_ps,
                "happened": happened,
                "cause": None if event is None else event.cause,
            },
        )
