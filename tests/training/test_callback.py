"""One callback in several trainings, as a script may have it."""

import copy

import pytest
import torch
from lightning import Trainer

from nequip_decorr import EdgeCorrelation, EdgeDecorrelation
from nequip_decorr.correlation.sampled import SampledCorrelation
from nequip_decorr.training.progress import Progress
from tests.support.trainings import coefficients, labels


def set_up(module, *callbacks):
    quiet = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = Trainer(callbacks=list(callbacks), max_epochs=4, **quiet)
    for callback in callbacks:
        callback.setup(trainer, module, "fit")
    return trainer


@pytest.mark.parametrize("monitor", [True, False])
def test_the_same_callback_with_another_module(built, monitor):
    callback = EdgeDecorrelation(schedule={"coeff": 0.5}, monitor=monitor)
    for _ in range(2):
        module = copy.deepcopy(built)
        set_up(module, callback)
        assert "edge_correlation" in module.loss
        assert ("edge_correlation" in module.val_metrics[0]) is monitor
        callback.term.enter(0.5)
        assert coefficients(module.loss)["edge_correlation"] == 0.5


def test_the_options_reach_the_term_and_the_monitor(module):
    penalty = {"kind": "abs", "floor": 0.1}
    sample = {"edges": 50, "channels": 3, "seed": 5}
    callback = EdgeDecorrelation(
        schedule={"coeff": 0.5}, sample=sample, penalty=penalty, layer_weights=[1, 2, 3]
    )
    set_up(module, callback)
    generator = torch.Generator().manual_seed(0)
    preds = {"edge_features": torch.randn(400, 12, generator=generator) ** 3}
    same = {"layer_weights": [1, 2, 3], "penalty": "abs", "variance_floor": 0.1}
    drawn = {"max_edges": 50, "max_channels": 3, "seed": 5}
    expected = SampledCorrelation("edge_features", 4, **same, **drawn)
    term, monitor = callback.term.metric, module.val_metrics[0]["edge_correlation"]
    for metric in (term, expected):
        metric.step = 7
    assert term(preds, {}) == expected(preds, {})
    assert monitor(preds, {}) == EdgeCorrelation("edge_features", 4, **same)(preds, {})
    # and each of them matters
    for change in (
        {"penalty": "square"},
        {"variance_floor": 1e-4},
        {"max_edges": 60},
        {"max_channels": 2},
        {"seed": 6},
        {"layer_weights": None},
    ):
        other = SampledCorrelation("edge_features", 4, **{**same, **drawn, **change})
        other.step = 7
        assert other(preds, {}) != expected(preds, {}), change


def test_each_step_draws_anew(module):
    """The same edges and channels at each step would be another term."""
    callback = EdgeDecorrelation(schedule={"coeff": 0.5}, sample={"edges": 50})
    set_up(module, callback)
    preds = {"edge_features": torch.randn(400, 12)}
    values = set()
    for step in (0, 1, 2):
        callback.term.start_batch(Progress(0, step, 10, step), 0.5)
        values.add(float(callback.term.metric(preds, {})))
    assert len(values) == 3


def test_another_callback_with_the_same_module(module):
    for coeff in (0.5, 0.7):
        callback = EdgeDecorrelation(schedule={"coeff": coeff})
        set_up(module, callback)
        callback.term.enter(coeff)
        assert coefficients(module.loss)["edge_correlation"] == coeff
        assert module.loss["edge_correlation"] is callback.term.metric


def test_the_stages_of_one_training_have_one_term(module):
    callback = EdgeDecorrelation(schedule={"coeff": 0.5})
    set_up(module, callback)
    term = callback.term
    set_up(module, callback)
    assert callback.term is term
    assert module.loss["edge_correlation"] is term.metric


def test_nothing_is_left_in_the_module_after_a_training(module, built):
    """Evaluated or trained by a Trainer without the callback, it is a plain one."""
    callback = EdgeDecorrelation(schedule={"coeff": 0.5})
    other = EdgeDecorrelation(schedule={"coeff": 0.5}, name="other")
    trainer = set_up(module, callback, other)
    term = callback.term
    term.enter(0.5)
    other.term.enter(0.5)
    managers = {"loss": module.loss, "metrics": module.val_metrics[0]}
    plain = {"loss": built.loss, "metrics": built.val_metrics[0]}
    frame = labels()
    for manager in managers.values():
        manager({**frame, "edge_features": torch.randn(9, 12)}, frame)
        manager.compute()
    callback.teardown(trainer, module, "fit")
    assert "edge_correlation" not in module.loss
    assert coefficients(module.loss)["other"] == 0.5
    other.on_exception(trainer, module, KeyboardInterrupt())
    callback.teardown(trainer, module, "fit")  # of a trainer that tests as well
    for name, manager in managers.items():
        assert coefficients(manager) == coefficients(plain[name])
        for left in (manager.metrics_values_step, manager.metrics_values_epoch):
            assert list(left) == list(manager) == list(plain[name])
    # a second fit of the same Trainer goes on with what it had
    set_up(module, callback)
    assert callback.term is term
    assert module.loss["edge_correlation"] is term.metric
    assert "edge_correlation" in module.val_metrics[0]
