"""Allegro's tensor track through the real ``nequip-train``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import train, train_fails

pytestmark = pytest.mark.slow

VALUE = "val0_epoch/edge_correlation"
TENSORS = "nequip_decorr.features=tensors"


def test_the_term_lowers_the_correlation_of_tensors(tmp_path: Path) -> None:
    epochs = "trainer.max_epochs=3"
    watched = train(tmp_path / "m", "+nequip_decorr=monitor", TENSORS, epochs)
    lowered = train(tmp_path / "d", "+nequip_decorr=cosine", TENSORS, epochs)
    assert "tensors, 2 layers: 4x0e+4x1o, 4x0e; schedule cosine" in lowered.output
    assert lowered.column(VALUE)[-1] < 0.8 * watched.column(VALUE)[-1]
    for name in ("0_tensors_0e", "0_tensors_1o", "1_tensors_0e"):
        assert 0 < lowered.column(f"{VALUE}_layer{name}_mean_abs_rho")[-1] <= 1
        assert 1 <= lowered.column(f"{VALUE}_layer{name}_effective_rank")[-1] <= 4


def test_edges_are_drawn_and_their_correlation_steers_the_coefficient(
    tmp_path: Path,
) -> None:
    flags = ("+nequip_decorr=target", TENSORS, "nequip_decorr.layer_weights=[1,0]")
    # levels far below and far above what is measured
    levels = {100: 1e-3, "null": 0.9}
    runs = {
        edges: train(
            tmp_path / str(edges),
            *flags,
            f"nequip_decorr.sample.edges={edges}",
            f"nequip_decorr.schedule.level={level}",
        )
        for edges, level in levels.items()
    }
    drawn, every = (
        run.column("train_loss_step/edge_correlation")[0] for run in runs.values()
    )
    # of the same batch of the same weights; from 100 edges a correlation is 0.1 off
    assert drawn != every
    assert abs(drawn - every) < 0.1
    for edges, run in runs.items():
        first, second = run.column("loss_coeff/edge_correlation")[:2]
        assert (second > first) == (levels[edges] < drawn)


def test_features_of_another_model_stop_before_training(tmp_path: Path) -> None:
    flags = ("+nequip_decorr=cosine", "nequip_decorr.features=radial")
    assert "`features: radial` needs a NequIP GNN" in train_fails(tmp_path, *flags)
    assert not list(tmp_path.glob("*.ckpt"))
