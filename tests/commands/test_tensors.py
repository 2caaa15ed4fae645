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


def test_a_level_is_held_and_edges_are_drawn(tmp_path: Path) -> None:
    flags = ("+nequip_decorr=target", TENSORS, "nequip_decorr.sample.edges=100")
    run = train(tmp_path, *flags, "nequip_decorr.layer_weights=[1,0]")
    assert len(set(run.column("loss_coeff/edge_correlation"))) > 1


def test_features_of_another_model_stop_before_training(tmp_path: Path) -> None:
    flags = ("+nequip_decorr=cosine", "nequip_decorr.features=radial")
    assert "`features: radial` needs a NequIP GNN" in train_fails(tmp_path, *flags)
    assert not list(tmp_path.glob("*.ckpt"))
