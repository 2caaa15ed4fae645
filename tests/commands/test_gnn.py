"""A NequIP GNN through the real commands: trained, compiled, restarted, handed on."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.commands.test_configs import A_FEW, with_our_data
from tests.support.commands import (
    DATA,
    HERE,
    Run,
    config_with,
    package_model,
    train,
)
from tests.support.elsewhere import run_python

pytestmark = pytest.mark.slow

GNN = {
    "_target_": "nequip.model.NequIPGNNModel",
    "seed": 1,
    "model_dtype": "float32",
    "type_names": ["Hf", "O"],
    "r_max": 3.5,
    "num_layers": 2,
    "l_max": 1,
    "parity": False,
    "num_features": [4, 3],
    "radial_mlp_depth": 1,
    "radial_mlp_width": 8,
    "avg_num_neighbors": 12.0,
    "per_type_energy_shifts": "${training_data_stats:per_atom_energy_mean}",
    "per_type_energy_scales": 1.0,
}
FLAG = (
    "+nequip_decorr=constant",
    "nequip_decorr.schedule.coeff=3.0",
    "nequip_decorr.sample.every=1",
)
VALUE = "val0_epoch/edge_correlation"
PENALTY = "train_loss_step/edge_correlation"
LOSS = "train_loss_step/weighted_sum"
IN_ORDER = "data.train_dataloader.shuffle=false"
#: What every key and log name of the taps begins with.
OURS = re.compile(rb"decorr")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    return config_with(folder, {"training_module.model": GNN})


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, config: Path) -> Run:
    folder = tmp_path_factory.mktemp("plain")
    return train(folder, IN_ORDER, "trainer.max_epochs=3", config=config)


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory, config: Path) -> Run:
    folder = tmp_path_factory.mktemp("lowered")
    return train(folder, *FLAG, IN_ORDER, "trainer.max_epochs=3", config=config)


def weights(trained: Run) -> dict[str, torch.Tensor]:
    state = trained.checkpoint()["state_dict"]
    return {key: value for key, value in state.items() if torch.is_tensor(value)}


@pytest.mark.parametrize("kind", ["radial", "messages", "node"])
def test_the_term_lowers_the_correlation(
    tmp_path: Path, config: Path, plain: Run, lowered: Run, kind: str
) -> None:
    chosen = (f"nequip_decorr.features={kind}", IN_ORDER, "trainer.max_epochs=3")
    monitor = "+nequip_decorr=monitor"
    watched = train(tmp_path / "m", monitor, *chosen, config=config)
    # measuring, with the taps that it takes, changes nothing
    for key, value in weights(plain).items():
        assert torch.equal(weights(watched)[key], value), key
    assert watched.column("val0_epoch/weighted_sum") == plain.column(
        "val0_epoch/weighted_sum"
    )
    if kind == "radial":  # the default
        changed = lowered
    else:
        changed = train(tmp_path / "d", *FLAG, *chosen, config=config)
    assert changed.column(VALUE)[-1] < 0.9 * watched.column(VALUE)[-1]


def test_radial_weights_are_what_a_gnn_gets(lowered: Run) -> None:
    assert "radial weights, 2 layers: 8 channels, 7 channels; schedule" in (
        lowered.output
    )
    for layer in (0, 1):
        prefix = f"{VALUE}_layer{layer}_radial"
        assert 0 < lowered.column(f"{prefix}_mean_abs_rho")[-1] <= 1
        assert lowered.column(f"{prefix}_effective_rank")[-1] >= 1
    for row in lowered.metrics:
        if row[LOSS]:
            assert float(row[LOSS]) == pytest.approx(
                0.25 * float(row["train_loss_step/per_atom_energy_mse"])
                + 0.75 * float(row["train_loss_step/forces_mse"])
                + 3.0 * float(row[PENALTY]),
                rel=1e-6,
            )


def test_nequips_own_tutorial_takes_the_flag(tmp_path: Path) -> None:
    config = with_our_data("nequip_tutorial", tmp_path / "config")
    eager = "training_module.model.compile_mode=eager"
    flag = "+nequip_decorr=cosine"
    tutorial = train(tmp_path / "run", *A_FEW, flag, eager, config=config)
    assert "radial weights, 4 layers: " in tutorial.output
    (log,) = tutorial.folder.rglob("metrics.csv")
    assert f"{VALUE}_layer3_radial_effective_rank" in log.read_text()


def test_irreps_are_logged_one_by_one(tmp_path: Path, config: Path) -> None:
    chosen = ("nequip_decorr.features=messages", "trainer.max_epochs=1")
    watched = train(tmp_path, "+nequip_decorr=monitor", *chosen, config=config)
    assert "messages, 2 layers: 4x0e+4x1o, 7x0e" in watched.output
    for name in ("0_messages_0e", "0_messages_1o", "1_messages_0e"):
        assert 0 < watched.column(f"{VALUE}_layer{name}_mean_abs_rho")[-1] <= 1


def test_restarts_on_and_off(
    tmp_path: Path, config: Path, plain: Run, lowered: Run
) -> None:
    def resume(start: Run, name: str, *flags: str) -> Run:
        source = f"++ckpt_path={start.folder / 'epoch0.ckpt'}"
        more = (IN_ORDER, "trainer.max_epochs=3", source)
        return train(tmp_path / name, *flags, *more, config=config)

    kept = resume(lowered, "kept", *FLAG)
    assert "restarted at step 5, settings unchanged" in kept.output
    assert kept.column(LOSS) == lowered.column(LOSS)[5:]
    for key, value in weights(lowered).items():
        assert torch.equal(weights(kept)[key], value), key
    on = resume(plain, "on", *FLAG)
    assert "turned on at step 5 of a restarted training" in on.output
    assert len(on.column(PENALTY)) == 10
    off = resume(lowered, "off")
    assert PENALTY not in off.metrics[0]
    assert off.checkpoint()["state_dict"].keys() == (
        plain.checkpoint()["state_dict"].keys()
    )


def test_stages_one_after_the_other(tmp_path: Path, config: Path) -> None:
    epoch = "trainer.max_epochs=1"
    stages = train(tmp_path, *FLAG, epoch, "run=[val,train,val]", config=config)
    before, after, again = stages.column(VALUE)
    assert again == after < before


def test_compiled_training(tmp_path: Path) -> None:
    # one layer: compiling takes a minute as it is
    model = {**GNN, "num_layers": 1}
    config = config_with(tmp_path / "config", {"training_module.model": model})
    flags = (*FLAG, "trainer.max_epochs=1", "nequip_decorr.sample.edges=100")
    eager = train(tmp_path / "eager", *flags, config=config)
    compile_mode = "+training_module.model.compile_mode=compile"
    compiled = train(tmp_path / "compiled", *flags, compile_mode, config=config)
    # sanity validation has compiled the model before the first step
    assert len(compiled.column(PENALTY)) == 5
    for name in (PENALTY, VALUE):
        assert compiled.column(name) == pytest.approx(eager.column(name), rel=1e-3)
    assert weights(compiled).keys() == weights(eager).keys()


@pytest.fixture(scope="module")
def package(lowered: Run) -> Path:
    return package_model(
        lowered.folder / "last.ckpt", lowered.folder / "model.nequip.zip"
    )


def strings(value: Any) -> set[str]:
    """Every string in a nest of containers."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return set().union(*(strings(each) for each in (*value, *value.values())))
    if isinstance(value, (list, tuple, set)):
        return set().union(*(strings(each) for each in value))
    return set()


def test_no_file_holds_anything_of_ours(
    plain: Run, lowered: Run, package: Path
) -> None:
    state = lowered.checkpoint()
    assert state["state_dict"].keys() == plain.checkpoint()["state_dict"].keys()
    assert not OURS.search(package.read_bytes())
    # Lightning keeps the state of each callback under the name of its class and ours
    (key,) = [k for k in state["callbacks"] if k.startswith("EdgeDecorrelation")]
    mine = state["callbacks"].pop(key)
    assert mine["settings"]["features"] is None
    assert not [text for text in strings(state) if OURS.search(text.lower().encode())]
    assert b"nequip_decorr" not in (lowered.folder / "last.ckpt").read_bytes()


def test_predictions_are_the_same_without_the_package(
    lowered: Run,
    package: Path,
    clean_python: Path,
    tmp_path: Path,
) -> None:
    script = str(HERE / "predict.py")
    models = [str(lowered.folder / "last.ckpt"), str(package)]
    results = []
    for python, where in ((Path(sys.executable), "here"), (clean_python, "not here")):
        out = tmp_path / f"{len(results)}.npz"
        arguments = (script, str(out), str(DATA), *models)
        printed = run_python(python, *arguments, cwd=tmp_path)
        assert f"nequip_decorr is {where}" in printed
        with np.load(out) as found:
            results.append(dict(found))
    expected, got = results
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert np.isfinite(value).all() and value.size
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_fine_tuning_a_package(tmp_path: Path, package: Path, lowered: Run) -> None:
    model = {
        "_target_": "nequip.model.ModelFromPackage",
        "package_path": str(package),
    }
    config = config_with(tmp_path / "config", {"training_module.model": model})
    epoch = "trainer.max_epochs=1"
    tuned = train(tmp_path / "tuned", *FLAG, IN_ORDER, epoch, config=config)
    assert "radial weights, 2 layers: 8 channels, 7 channels" in tuned.output
    assert tuned.column(PENALTY)[0] < lowered.column(PENALTY)[0]
