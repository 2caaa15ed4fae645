"""Coefficients of the term beside those of NequIP's loss."""

import pytest
import torch

from nequip_decorr import EdgeCorrelation
from nequip_decorr.errors import UserError
from nequip_decorr.training import nequip_internals as _host
from tests.support.trainings import coefficients, labels, new_loss


def test_adding_a_metric_changes_no_coefficient_and_no_other_value():
    loss, plain = new_loss(), new_loss()
    _host.add_metric(loss, "ec", EdgeCorrelation())
    assert coefficients(loss) == {**coefficients(plain), "ec": None}
    frame = labels()
    torch.manual_seed(0)
    preds = {
        k: v + torch.randn(v.shape) if v.is_floating_point() else v
        for k, v in frame.items()
    }
    found = loss({**preds, "edge_features": torch.randn(9, 4)}, frame)
    expected = plain(preds, frame)
    assert found.pop("ec") > 0
    assert found == expected
    epoch = loss.compute()
    assert epoch.pop("ec") > 0
    assert epoch == plain.compute()


def test_adding_the_same_metric_twice_is_once():
    loss, metric = new_loss(), EdgeCorrelation()
    _host.add_metric(loss, "ec", metric)
    _host.set_coefficient(loss, "ec", 0.5)
    _host.add_metric(loss, "ec", metric)
    assert coefficients(loss)["ec"] == 0.5
    # off, it is still ours
    _host.set_coefficient(loss, "ec", 0.0)
    _host.add_metric(loss, "ec", metric)
    assert "ec" not in loss.entries


def test_a_term_of_an_earlier_training_gives_way():
    """The user cannot remove it: a callback has added it to this module."""
    loss, earlier, metric = new_loss(), EdgeCorrelation(), EdgeCorrelation()
    earlier.checked_by_callback = True
    _host.add_metric(loss, "ec", earlier)
    _host.set_coefficient(loss, "ec", 0.5)
    _host.add_metric(loss, "ec", metric)
    assert loss["ec"] is metric
    assert coefficients(loss)["ec"] is None


def test_a_taken_name_is_refused():
    loss = new_loss()
    with pytest.raises(UserError, match=r"a metric called 'forces_mse'.*set another"):
        _host.add_metric(loss, "forces_mse", EdgeCorrelation())
    _host.add_metric(loss, "ec", EdgeCorrelation())
    with pytest.raises(UserError, match="a metric called 'ec'"):
        _host.add_metric(loss, "ec", EdgeCorrelation())


@pytest.mark.parametrize("name", ["", "edge.correlation", "keys", "weighted_sum"])
def test_a_name_that_nequip_cannot_take_is_refused(name):
    loss = new_loss()
    with pytest.raises(UserError, match=f"expected a `name`.*got '{name}'; set for"):
        _host.add_metric(loss, name, EdgeCorrelation())
    assert coefficients(loss) == coefficients(new_loss())


def test_a_coefficient_is_set_beside_the_others():
    loss, plain = new_loss(), new_loss()
    _host.add_metric(loss, "ec", EdgeCorrelation())
    for coeff in (0.3, 3.0, 1e-6):
        _host.set_coefficient(loss, "ec", coeff)
        assert coefficients(loss) == {**coefficients(plain), "ec": coeff}
    frame = labels()
    features = torch.randn(9, 4, requires_grad=True)
    preds = {**frame, "edge_features": features}
    _host.set_coefficient(loss, "ec", 2.0)
    values = loss(preds, frame)
    assert values["weighted_sum"].item() == pytest.approx(2 * values["ec"].item())


def test_coefficient_0_takes_the_term_out():
    loss, plain = new_loss(), new_loss()
    _host.add_metric(loss, "ec", EdgeCorrelation())
    _host.set_coefficient(loss, "ec", 1.0)
    frame = labels()
    loss({**frame, "edge_features": torch.randn(9, 4)}, frame)
    _host.set_coefficient(loss, "ec", 0.0)
    _host.set_coefficient(loss, "ec", 0.0)
    assert coefficients(loss) == coefficients(plain)
    # without features in the output it would raise if it were computed
    assert "ec" not in loss(frame, frame)
    assert "ec" not in loss.compute()
    assert _host.last_value(loss, "ec") is None
    _host.set_coefficient(loss, "ec", 0.1)
    assert coefficients(loss) == {**coefficients(plain), "ec": 0.1}


@pytest.mark.parametrize(
    "set_by_others",
    [
        {"per_atom_energy_mse": 4.0, "forces_mse": 1.0, "ec": 5.0},
        {"per_atom_energy_mse": 4.0, "forces_mse": 1.0},
    ],
)
def test_after_others_set_coefficients_they_have_what_they_would_have(set_by_others):
    loss, plain = new_loss(), new_loss()
    _host.add_metric(loss, "ec", EdgeCorrelation())
    _host.set_coefficient(loss, "ec", 0.7)
    loss.set_coeffs(set_by_others)
    plain.set_coeffs(set_by_others)
    _host.set_coefficient(loss, "ec", 0.7)
    found = coefficients(loss)
    assert found.pop("ec") == 0.7
    assert found == pytest.approx(coefficients(plain), rel=1e-15)


TERMS = ("first", "second")


def with_two_terms():
    loss = new_loss()
    for name in TERMS:
        _host.add_metric(loss, name, EdgeCorrelation())
        _host.set_coefficient(loss, name, 0.0, TERMS)
    return loss


def test_terms_of_ours_do_not_count_among_the_others():
    loss, plain = with_two_terms(), new_loss()
    for coeffs in ((0.3, 3.0), (2.0, 0.0), (0.0, 0.5), (1.0, 1.0)):
        for name, coeff in zip(TERMS, coeffs, strict=True):
            _host.set_coefficient(loss, name, coeff, TERMS)
        expected = dict(zip(TERMS, coeffs, strict=True))
        assert coefficients(loss) == {
            **coefficients(plain),
            **{name: coeff for name, coeff in expected.items() if coeff},
        }


@pytest.mark.parametrize("order", [TERMS, TERMS[::-1]])
def test_after_others_set_coefficients_of_both_terms(order):
    loss, plain = with_two_terms(), new_loss()
    for name in TERMS:
        _host.set_coefficient(loss, name, 0.7, TERMS)
    by_others = {"per_atom_energy_mse": 4.0, "forces_mse": 1.0, "first": 5.0}
    loss.set_coeffs(by_others)
    plain.set_coeffs(by_others)
    for name in order:
        _host.set_coefficient(loss, name, 0.7, TERMS)
    found = coefficients(loss)
    assert [found.pop(name) for name in TERMS] == [0.7, 0.7]
    assert found == pytest.approx(coefficients(plain), rel=1e-15)


def test_a_sum_is_taken_in_the_same_order_whichever_term_was_off_before():
    # bit by bit: a restart begins with all terms off
    loss = with_two_terms()
    expected = [*coefficients(new_loss()), *TERMS]
    for order in (TERMS, TERMS[::-1], TERMS):
        for name in order:
            _host.set_coefficient(loss, name, 0.0, TERMS)
            _host.set_coefficient(loss, name, 1.0, TERMS)
        assert list(loss.entries) == expected
    for name in TERMS:
        _host.set_coefficient(loss, name, 0.0, TERMS)
    for name in TERMS[::-1]:
        _host.set_coefficient(loss, name, 1.0, TERMS)
    assert list(loss.entries) == expected


def test_a_term_that_others_switched_off_stays_off():
    loss = new_loss()
    _host.add_metric(loss, "ec", EdgeCorrelation())
    loss.set_coeffs({"forces_mse": 1.0})
    _host.set_coefficient(loss, "ec", 0.5)
    assert coefficients(loss) == {
        "per_atom_energy_mse": None,
        "forces_mse": 1.0,
        "ec": 0.5,
    }
