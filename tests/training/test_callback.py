"""One callback in several trainings, as a script may have it."""

import copy

import pytest
from lightning import Trainer

from nequip_decorr import EdgeDecorrelation
from tests.support.trainings import coefficients


def set_up(callback, module):
    quiet = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = Trainer(callbacks=[callback], max_epochs=4, **quiet)
    callback.setup(trainer, module, "fit")


@pytest.mark.parametrize("monitor", [True, False])
def test_the_same_callback_with_another_module(built, monitor):
    callback = EdgeDecorrelation(schedule={"coeff": 0.5}, monitor=monitor)
    for _ in range(2):
        module = copy.deepcopy(built)
        set_up(callback, module)
        assert "edge_correlation" in module.loss
        assert ("edge_correlation" in module.val_metrics[0]) is monitor
        callback.term.enter(0.5)
        assert coefficients(module.loss)["edge_correlation"] == 0.5


def test_another_callback_with_the_same_module(module):
    for coeff in (0.5, 0.7):
        callback = EdgeDecorrelation(schedule={"coeff": coeff})
        set_up(callback, module)
        callback.term.enter(coeff)
        assert coefficients(module.loss)["edge_correlation"] == coeff
        assert module.loss["edge_correlation"] is callback.term.metric


def test_the_stages_of_one_training_have_one_term(module):
    callback = EdgeDecorrelation(schedule={"coeff": 0.5})
    set_up(callback, module)
    term = callback.term
    set_up(callback, module)
    assert callback.term is term
