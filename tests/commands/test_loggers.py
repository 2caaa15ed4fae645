"""Weights & Biases and MLflow get what Lightning's CSV log gets, and the options.

One training writes all three at once. What is compared was read back from the files.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from tests.support.commands import Run, config_with, train

pytestmark = pytest.mark.slow

NAMES = (
    "loss_coeff/edge_correlation",
    "train_loss_step/edge_correlation",
    "train_loss_epoch/edge_correlation",
    "val0_epoch/edge_correlation",
    *(
        f"val0_epoch/edge_correlation_layer{layer}_{value}"
        for layer in (0, 1)
        for value in (
            "mean_abs_rho",
            "mean_rho2_debiased",
            "effective_rank",
            "dead_fraction",
        )
    ),
)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("logged")
    here = "${hydra:runtime.output_dir}"
    loggers = [
        {
            "_target_": "lightning.pytorch.loggers.CSVLogger",
            "save_dir": here,
            "name": None,
            "version": "",
        },
        {
            "_target_": "lightning.pytorch.loggers.WandbLogger",
            "project": "hfo2",
            "name": "decorrelated",
            "offline": True,
            "log_model": False,
            "save_dir": here,
        },
        {
            "_target_": "lightning.pytorch.loggers.MLFlowLogger",
            "experiment_name": "hfo2",
            "tracking_uri": f"sqlite:///{here}/mlflow.db",
            "artifact_location": f"{here}/artifacts",
        },
    ]
    config = config_with(folder / "config", {"trainer.logger": loggers})
    flag = ("+nequip_decorr=cosine", "nequip_decorr.schedule.coeff=0.5")
    return train(folder / "run", *flag, config=config)


def wandb_records(folder: Path) -> Iterator[Record]:
    """Records of an offline run, which wandb writes as a log of LevelDB."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    log, header, block = path.read_bytes(), 7, 32768
    at, parts = header, []
    while at + header < len(log):
        left = block - at % block
        kind = log[at + 6] if left >= header else 0
        if kind == 0:  # padding
            at += left
            continue
        length = int.from_bytes(log[at + 4 : at + 6], "little")
        at += header + length
        parts.append(log[at - length : at])
        if kind in {1, 4}:  # whole, or the last part
            yield Record.FromString(b"".join(parts))
            parts = []


def value_of(item: Any) -> tuple[str, Any]:
    return item.key or "/".join(item.nested_key), json.loads(item.value_json)


def test_wandb_offline(logged: Run) -> None:
    records = list(wandb_records(logged.folder))
    rows = [dict(map(value_of, record.history.item)) for record in records]
    for name in NAMES:
        values = [row[name] for row in rows if name in row]
        assert values == pytest.approx(logged.column(name), rel=1e-6), name
        assert len(values) >= 2
    # as configured, so that runs can be sorted by it
    config = dict(value_of(item) for record in records for item in record.config.update)
    options = config["edge_correlation"]
    assert options["schedule"]["kind"] == "cosine"
    assert options["schedule"]["coeff"] == 0.5


def test_mlflow_in_a_local_database(logged: Run) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own use of SQLAlchemy
        from mlflow.tracking import MlflowClient

        client = MlflowClient(f"sqlite:///{logged.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("hfo2")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    for name in NAMES:
        history = client.get_metric_history(run.info.run_id, name)
        values = [metric.value for metric in history]
        assert values == pytest.approx(logged.column(name), rel=1e-6), name
        assert len(values) >= 2
    assert run.data.params["edge_correlation/schedule/kind"] == "cosine"
    assert run.data.params["edge_correlation/schedule/coeff"] == "0.5"
