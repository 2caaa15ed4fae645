"""Losses of data that lack some labels, as NequIP's ``ignore_nan`` takes them."""

import math

import pytest
import torch
from hydra.utils import instantiate
from nequip.data import AtomicDataDict

from nequip_decorr.training import nequip_internals as _host
from nequip_decorr.training.relative import RunningLoss
from tests.support import reference
from tests.support.trainings import labels


def loss_of(*ignored):
    return instantiate(
        {
            "_target_": "nequip.train.EnergyForceStressLoss",
            "coeffs": {"total_energy": 1.0, "forces": 3.0, "stress": 4.0},
            "ignore_nan": dict.fromkeys(ignored, True),
        },
        type_names=reference.TYPE_NAMES,
    )


def batch(error, *, without=()):
    """Predictions that are off by this much everywhere, and the labels."""
    target = labels() | {AtomicDataDict.STRESS_KEY: torch.zeros(1, 3, 3)}
    preds = {k: v + error if v.is_floating_point() else v for k, v in target.items()}
    for key in without:
        target[key] = torch.full_like(target[key], math.nan)
    return preds, target


STRESS, ENERGY = AtomicDataDict.STRESS_KEY, AtomicDataDict.TOTAL_ENERGY_KEY


def test_a_batch_without_stresses_counts_by_what_it_has():
    loss = loss_of("stress")
    assert math.isnan(loss(*batch(0.5, without=[STRESS]))["weighted_sum"])
    # coefficients that sum to 1; an energy error by atom, of five
    forces, energy = 3 / 8 * 0.25, 1 / 8 * 0.01
    found = _host.value_without(loss, {"ec"})
    assert found == pytest.approx(energy + forces)
    loss(*batch(0.5))
    found = _host.value_without(loss, {"ec"})
    assert found == pytest.approx(energy + forces + 4 / 8 * 0.25)


def test_accumulated_batches_of_both_kinds_count():
    """Four micro-batches a step, two of them without stresses."""
    loss, running = loss_of("stress"), RunningLoss()
    for number in range(4):
        loss(*batch(0.5, without=[STRESS] if number % 2 else []))
        running.add(_host.value_without(loss, {"ec"}), stepped=number == 3)
    assert running.value > 0


def test_a_loss_that_is_not_finite_for_another_reason_is_not_hidden():
    loss = loss_of("stress")
    preds, target = batch(0.5)
    preds[AtomicDataDict.FORCE_KEY] = preds[AtomicDataDict.FORCE_KEY] * math.nan
    loss(preds, target)
    assert math.isnan(_host.value_without(loss, {"ec"}))


def test_energies_may_be_missing_from_a_batch():
    """Then their gradient, on which sparse gradients of the term rely, is, too."""
    assert _host.has_energy_term(loss_of("stress"))
    assert not _host.has_energy_term(loss_of("total_energy"))


@pytest.mark.parametrize("by_type", [False, True])
def test_losses_by_type_are_those_of_each_rank(by_type):
    config = {
        "_target_": "nequip.train.EnergyForceLoss",
        "coeffs": {"total_energy": 1.0, "forces": 3.0},
    }
    if by_type:
        weights = dict.fromkeys(reference.TYPE_NAMES, 1.0)
        config["per_type_forces_coeffs"] = weights
    loss = instantiate(config, type_names=reference.TYPE_NAMES)
    assert _host.differs_by_rank(loss) is by_type
