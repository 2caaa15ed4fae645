"""``+nequip_decorr=...`` as a user types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.support.commands import Run, train, train_arguments, train_fails

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def cosine(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("cosine"), "+nequip_decorr=cosine")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("watched"), "+nequip_decorr=monitor")


def weights(run: Run, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    state = run.checkpoint(name)["state_dict"]
    return {key: value for key, value in state.items() if torch.is_tensor(value)}


def test_the_console_script_takes_the_flag(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("nequip-train")
    arguments = train_arguments(
        tmp_path, "+nequip_decorr=cosine", "trainer.max_epochs=1"
    )
    done = subprocess.run(
        [str(script), *arguments],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "2 layers of 8 channels; schedule cosine, coefficient 3.0" in done.stdout


def test_cosine_falls_from_three_to_zero(cosine: Run) -> None:
    steps = 10
    expected = [
        1.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item())
        for step in range(steps)
    ]
    assert cosine.column("loss_coeff/edge_correlation") == pytest.approx(expected)


def test_cosine_lowers_the_correlation(watched: Run, cosine: Run) -> None:
    before = watched.column("val0_epoch/edge_correlation")[-1]
    assert cosine.column("val0_epoch/edge_correlation")[-1] < 0.7 * before


def test_energy_and_force_coefficients_are_those_without(
    plain: Run, cosine: Run
) -> None:
    key = "loss._extra_state"
    without = plain.checkpoint()["state_dict"][key]["coeff_dict"]
    assert without == {"per_atom_energy_mse": 0.25, "forces_mse": 0.75}
    assert cosine.checkpoint()["state_dict"][key]["coeff_dict"] == without
    for row in cosine.metrics:
        if row["train_loss_step/weighted_sum"]:
            assert float(row["train_loss_step/weighted_sum"]) == pytest.approx(
                0.25 * float(row["train_loss_step/per_atom_energy_mse"])
                + 0.75 * float(row["train_loss_step/forces_mse"])
                + float(row["loss_coeff/edge_correlation"])
                * float(row["train_loss_step/edge_correlation"]),
                rel=1e-6,
            )


@pytest.mark.parametrize(
    "flags",
    [
        None,
        ("+nequip_decorr=cosine", "nequip_decorr.schedule.coeff=0"),
        ("+nequip_decorr=constant", "nequip_decorr.schedule.delay=1000"),
    ],
    ids=["monitor", "coeff-0", "delayed-beyond-the-end"],
)
def test_coefficient_zero_is_bit_identical(
    plain: Run, watched: Run, flags: tuple[str, ...] | None, tmp_path: Path
) -> None:
    with_extension = train(tmp_path, *flags) if flags else watched
    expected, got = plain.checkpoint(), with_extension.checkpoint()
    assert expected["state_dict"].keys() == got["state_dict"].keys()
    for key, value in weights(plain).items():
        assert torch.equal(got["state_dict"][key], value), key
    for name in ("train_loss_step/weighted_sum", "val0_epoch/weighted_sum"):
        assert with_extension.column(name) == plain.column(name)
    assert "train_loss_step/edge_correlation" not in with_extension.metrics[0]


def test_the_term_changes_the_weights(plain: Run, cosine: Run) -> None:
    trained, other = weights(plain), weights(cosine)
    assert trained.keys() == other.keys()
    assert any(not torch.equal(trained[key], other[key]) for key in trained)


def test_constant_holds_its_coefficient_and_takes_overrides(tmp_path: Path) -> None:
    default = train(tmp_path / "a", "+nequip_decorr=constant", "trainer.max_epochs=1")
    assert set(default.column("loss_coeff/edge_correlation")) == {0.3}
    other = train(
        tmp_path / "b",
        "+nequip_decorr=constant",
        "nequip_decorr.schedule.coeff=0.7",
        "nequip_decorr.sample.edges=300",
        "nequip_decorr.name=decorrelation",
        "trainer.max_epochs=1",
    )
    assert set(other.column("loss_coeff/decorrelation")) == {0.7}
    assert other.column("train_loss_step/decorrelation")


def test_overrides_may_hold_interpolations(tmp_path: Path) -> None:
    key = "training_module.model.per_type_energy_shifts"
    run = train(
        tmp_path,
        "+nequip_decorr=cosine",
        f"{key}='${{training_data_stats:per_atom_energy_mean}}'",
        "trainer.max_epochs=1",
    )
    assert run.column("loss_coeff/edge_correlation")


EVERY = 3


@pytest.fixture(scope="module")
def every_third(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(
        tmp_path_factory.mktemp("every"),
        "+nequip_decorr=constant",
        f"nequip_decorr.sample.every={EVERY}",
    )


def test_every_n_steps_the_term_weighs_n_times(every_third: Run) -> None:
    rows = [row for row in every_third.metrics if row["train_loss_step/weighted_sum"]]
    assert len(rows) == 10
    for row in rows:
        others = 0.25 * float(row["train_loss_step/per_atom_energy_mse"])
        others += 0.75 * float(row["train_loss_step/forces_mse"])
        # on average it is what is logged
        assert float(row["loss_coeff/edge_correlation"]) == 0.3
        share = float(row["train_loss_step/weighted_sum"]) - others
        if int(row["step"]) % EVERY:
            assert share == pytest.approx(0, abs=1e-6 * others)
        else:
            value = float(row["train_loss_step/edge_correlation"])
            assert share == pytest.approx(0.3 * EVERY * value, rel=1e-4)


def test_every_n_steps_an_epoch_has_its_value(every_third: Run) -> None:
    steps = {
        int(row["step"]): float(row["train_loss_step/edge_correlation"])
        for row in every_third.metrics
        if row["train_loss_step/edge_correlation"]
    }
    # two epochs of five steps; the last step of either is without the term
    first, second = every_third.column("train_loss_epoch/edge_correlation")
    low, high = sorted((steps[0], steps[3]))
    assert low <= first <= high
    low, high = sorted((steps[6], steps[9]))
    assert low <= second <= high
    assert every_third.column("val0_epoch/edge_correlation")


def test_every_n_steps_lowers_the_correlation(watched: Run, every_third: Run) -> None:
    before = watched.column("val0_epoch/edge_correlation")[-1]
    assert every_third.column("val0_epoch/edge_correlation")[-1] < before


def test_the_saved_config_shows_what_ran(cosine: Run) -> None:
    saved = yaml.safe_load((cosine.folder / ".hydra" / "config.yaml").read_text())
    assert saved["trainer"]["_target_"] == "lightning.Trainer"
    assert saved["nequip_decorr"]["schedule"]["kind"] == "cosine"
    assert saved["nequip_decorr"]["schedule"]["coeff"] == 3.0


def test_the_coefficient_is_logged_with_the_loss(tmp_path: Path) -> None:
    run = train(tmp_path, "+nequip_decorr=cosine", "trainer.log_every_n_steps=3")
    logged = [row["step"] for row in run.metrics if row["train_loss_step/weighted_sum"]]
    assert logged == ["2", "5", "8"]
    assert logged == [
        row["step"] for row in run.metrics if row["loss_coeff/edge_correlation"]
    ]


def test_every_layer_is_logged(cosine: Run) -> None:
    for layer in (0, 1):
        prefix = f"val0_epoch/edge_correlation_layer{layer}"
        assert 0 <= cosine.column(f"{prefix}_mean_abs_rho")[-1] <= 1
        assert -0.1 <= cosine.column(f"{prefix}_mean_rho2_debiased")[-1] <= 1
        assert 1 <= cosine.column(f"{prefix}_effective_rank")[-1] <= 8
        assert cosine.column(f"{prefix}_dead_fraction")[-1] == 0
    assert len(cosine.column("train_loss_epoch/edge_correlation")) == 2


def test_a_run_that_only_validates_is_watched(cosine: Run, tmp_path: Path) -> None:
    run = train(
        tmp_path,
        "+nequip_decorr=cosine",
        "run=[val]",
        "training_module.loss=null",
    )
    assert run.column("val0_epoch/edge_correlation_layer0_effective_rank")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.kind=sine", "expected `schedule.kind` to be one of constant,"),
        ("name=forces_mse", "already has a metric called 'forces_mse'"),
        ("features=nonsense", "got 'nonsense'"),
    ],
    ids=["options", "loss", "output"],
)
def test_bad_options_stop_before_training(
    override: str, message: str, tmp_path: Path
) -> None:
    """One for each thing that options have to fit; what else is refused, in units."""
    flags = ("+nequip_decorr=cosine", f"nequip_decorr.{override}")
    output = train_fails(tmp_path, *flags)
    assert message in output
    assert not list(tmp_path.glob("*.ckpt"))


def test_an_unknown_preset_names_the_known_ones(tmp_path: Path) -> None:
    output = train_fails(tmp_path, "+nequip_decorr=sine")
    assert "Could not find 'nequip_decorr/sine'" in output
    for preset in ("default", "constant", "cosine", "monitor", "target"):
        assert preset in output


def test_the_guard_names_the_metrics_that_there_are(tmp_path: Path) -> None:
    output = train_fails(
        tmp_path,
        "+nequip_decorr=target",
        "nequip_decorr.schedule.guard_monitor=val9/nothing",
    )
    assert (
        "expected `schedule.guard_monitor` to be a logged metric, got 'val9/nothing'"
        in output
    )
    assert "val0_epoch/forces_rmse" in output
    # the sanity check says so, not an epoch of training that would be lost
    assert not (tmp_path / "metrics.csv").exists()


def test_forces_alone_with_a_linear_readout(tmp_path: Path) -> None:
    # the energy's first derivative, which goes through the features, is not taken
    run = train(
        tmp_path,
        "+nequip_decorr=cosine",
        "nequip_decorr.sample.edges=100",
        "trainer.max_epochs=1",
        "+training_module.model.readout_mlp_nonlinearity=null",
        "training_module.loss.coeffs.total_energy=null",
    )
    assert run.column("train_loss_step/edge_correlation")
