"""The names of NequIP and Lightning that may change, and what we do with them.

A failure in the first half says that one of them did: adapt ``nequip_internals.py`` and
``nequip_models.py`` only.
"""

import copy
import dataclasses
import inspect
import logging
from importlib.metadata import version
from operator import attrgetter
from pkgutil import resolve_name
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from lightning import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from nequip.data import AtomicDataDict
from nequip.train import (
    ConFIGLightningModule,
    EMAConFIGLightningModule,
    EMALightningModule,
    MetricsManager,
    NequIPLightningModule,
)
from nequip.train.callbacks import LossCoefficientScheduler, SoftAdapt
from nequip.utils import RankedLogger

from nequip_decorr import EdgeCorrelation
from nequip_decorr.errors import UserError
from nequip_decorr.training import nequip_internals as _host
from nequip_decorr.training import nequip_models
from tests.support import reference

LOSS = {
    "_target_": "nequip.train.EnergyForceLoss",
    "coeffs": {"total_energy": 1.0, "forces": 3.0},
}
METRICS = {
    "_target_": "nequip.train.EnergyForceMetrics",
    "coeffs": {"total_energy_rmse": 1.0, "forces_rmse": 1.0},
}


def training_module(cls=NequIPLightningModule, **options):
    reference.build(reference.NEQUIP_GNN)  # sets NequIP's global state
    return cls(
        model=reference.ALLEGRO,
        num_datasets={"train": 1, "val": 1, "test": 0, "predict": 0},
        optimizer={"_target_": "torch.optim.Adam"},
        loss=LOSS,
        val_metrics=METRICS,
        **options,
    )


@pytest.fixture(scope="module")
def built():
    return training_module()


@pytest.fixture
def module(built):
    return copy.deepcopy(built)


def new_loss():
    return instantiate(LOSS, type_names=reference.TYPE_NAMES)


def coefficients(loss):
    return {name: entry.coeff for name, entry in loss.entries.items()}


# --- the names ---


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_metrics_manager_has_the_parts_that_we_set():
    assert parameters(MetricsManager.parse_entry) == ["metric_dict", "type_names"]
    assert parameters(MetricsManager.set_coeffs) == ["self", "coeff_dict"]
    manager = new_loss()
    assert isinstance(manager, torch.nn.ModuleDict)
    assert type(manager.entries) is dict
    assert type(manager.metrics_values_step) is dict
    parsed = MetricsManager.parse_entry(
        {"name": "x", "field": None, "metric": EdgeCorrelation()}, type_names=None
    )
    name, entry, metric = parsed
    assert name == "x"
    assert isinstance(metric, EdgeCorrelation)
    assert entry.coeff is None
    assert "coeff" in {field.name for field in dataclasses.fields(entry)}
    assert set(manager.entries) == set(manager.keys())


def test_metrics_manager_has_the_extra_state_that_we_strip():
    manager = new_loss()
    state = manager.state_dict()
    assert list(state) == ["_extra_state"]
    assert set(state["_extra_state"]) == {
        "coeff_dict",
        "metrics_values_step",
        "metrics_values_epoch",
    }
    for values in state["_extra_state"].values():
        assert list(values) == list(manager.entries)


def test_metrics_manager_reads_each_value_from_the_device_and_keeps_it():
    manager = new_loss()
    metric = EdgeCorrelation()
    _host.add_metric(manager, "ec", metric)
    frame = labels()
    manager({**frame, "edge_features": torch.randn(9, 4)}, frame)
    value = manager.metrics_values_step["ec"]
    assert type(value) is float
    assert _host.last_value(manager, "ec") == value


def test_the_training_module_has_the_parts_that_we_read(built):
    assert isinstance(built, LightningModule)
    assert isinstance(built.model, torch.nn.ModuleDict)
    assert isinstance(built.loss, MetricsManager)
    assert isinstance(built.val_metrics, torch.nn.ModuleList)
    assert "info_dict" in parameters(NequIPLightningModule.__init__)
    assert "info_dict" in built.hparams
    for metric in built.loss.values():
        assert metric.dist_sync_on_step is True


def test_the_model_has_the_parts_that_we_read(built):
    model = _host.sole_model(built)
    assert model.is_graph_model
    allegro = [m for m in model.modules() if type(m).__name__ == "Allegro_Module"]
    assert len(allegro) == 1
    assert allegro[0].scalar_out_field == AtomicDataDict.EDGE_FEATURES_KEY
    assert len(allegro[0].tps) == 2
    assert allegro[0].num_scalar_features == 4
    assert nequip_models.find_allegro(model) == ("edge_features", 4)
    assert model.irreps_out["edge_features"].dim == 12


def test_the_key_registry_tells_edges_from_nodes():
    kind = AtomicDataDict._key_registry.get_field_type
    assert parameters(kind) == ["field", "error_on_unregistered"]
    assert kind("edge_features", error_on_unregistered=False) == "edge"
    assert kind("node_features", error_on_unregistered=False) == "node"
    assert kind("total_energy", error_on_unregistered=False) == "graph"
    assert kind("no_such_field", error_on_unregistered=False) is None


def test_the_classes_that_are_refused_are_those_of_a_config():
    assert issubclass(EMAConFIGLightningModule, ConFIGLightningModule)
    assert not issubclass(EMALightningModule, ConFIGLightningModule)
    assert not issubclass(LossCoefficientScheduler, SoftAdapt)


def test_the_logger_of_nequip_takes_a_rank():
    assert parameters(RankedLogger.__init__)[:3] == ["self", "name", "rank_zero_only"]


def test_the_trainer_has_the_parts_that_the_callback_reads():
    trainer = Trainer(
        max_epochs=1, logger=False, accelerator="cpu", enable_checkpointing=False
    )
    for name in (
        "callbacks",
        "global_step",
        "current_epoch",
        "max_epochs",
        "max_steps",
        "num_training_batches",
        "accumulate_grad_batches",
        "limit_val_batches",
        "loggers",
        "ckpt_path",
        "sanity_checking",
        "callback_metrics",
    ):
        assert hasattr(trainer, name), name
    # no limit, as both are written
    assert trainer.max_steps == -1
    assert trainer.state.fn is None
    assert TrainerFn.FITTING == "fit"


def remove(monkeypatch, name, **roots):
    """Remove what a dotted name of ``RELIED_UPON`` means, wherever it is defined."""
    parent, _, last = name.rpartition(".")
    root, _, attributes = parent.partition(".")
    if root in roots:
        owner = attrgetter(attributes)(roots[root]) if attributes else roots[root]
    else:
        owner = resolve_name(parent)
    for each in (owner, *type(owner).__mro__):  # of an instance, its class's default
        if last in vars(each) or last in vars(each).get("_modules", {}):
            monkeypatch.delattr(each, last)


@pytest.mark.parametrize("name", _host.RELIED_UPON)
def test_a_name_that_is_gone_is_named_with_the_versions(module, monkeypatch, name):
    trainer = trainer_with()
    _host.check_names(trainer, module)
    remove(monkeypatch, name, trainer=trainer, training_module=module)
    with pytest.raises(UserError) as error:
        _host.check_names(trainer, module)
    said = str(error.value)
    assert f" {name}" in said.split("which the", maxsplit=1)[0]
    assert f"found nequip {version('nequip')}, nequip-allegro" in said
    assert "tried with nequip 0.19.1, nequip-allegro 0.8.3, lightning 2.6" in said
    assert "\n" not in said


def test_a_training_without_a_loss_has_its_names(module):
    module.loss = None
    _host.check_names(trainer_with(), module)


# --- what we do there ---


def labels():
    return {
        AtomicDataDict.TOTAL_ENERGY_KEY: torch.zeros(1, 1),
        AtomicDataDict.FORCE_KEY: torch.zeros(5, 3),
        AtomicDataDict.NUM_NODES_KEY: torch.tensor([5]),
    }


def test_several_models_are_refused(module):
    module.model["second"] = module.model["sole_model"]
    with pytest.raises(UserError, match=r"one model, got 2: \['sole_model', 'second'"):
        _host.sole_model(module)


def test_a_model_without_allegro_layers():
    assert nequip_models.find_allegro(reference.build(reference.NEQUIP_GNN)) is None


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


def test_a_checkpoint_is_stripped_to_that_of_a_plain_module(module, built):
    metric = EdgeCorrelation(layer_dim=4)
    _host.add_metric(module.loss, "ec", metric)
    _host.add_metric(module.val_metrics[0], "ec", EdgeCorrelation(layer_dim=4))
    _host.set_coefficient(module.loss, "ec", 0.3)
    frame = labels()
    module.loss({**frame, "edge_features": torch.randn(9, 4)}, frame)
    module.loss.compute()
    checkpoint = {"state_dict": module.state_dict()}
    _host.strip_checkpoint(checkpoint, "ec")
    state, plain = checkpoint["state_dict"], built.state_dict()
    assert list(state) == list(plain)
    key = "loss._extra_state"
    assert state[key]["coeff_dict"] == plain[key]["coeff_dict"]
    for key in ("loss._extra_state", "val_metrics.0._extra_state"):
        for field, values in state[key].items():
            assert list(values) == list(plain[key][field])
    # the module itself goes on with the term
    assert coefficients(module.loss)["ec"] == 0.3
    assert "ec" in module.loss.metrics_values_step
    fresh = copy.deepcopy(built)
    fresh.load_state_dict(state, strict=True)
    assert coefficients(fresh.loss) == coefficients(built.loss)


OURS = {"_target_": "nequip_decorr.EdgeDecorrelation", "coeff": 1.0}
OTHER = {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint"}


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        (
            {"_target_": "my.Trainer", "callbacks": [OURS, OTHER]},
            {"_target_": "my.Trainer", "callbacks": [OTHER]},
        ),
        ({"_target_": "my.Trainer", "callbacks": OURS}, None),
        ({"_target_": "my.Trainer", "callbacks": OTHER}, None),
        ({"_target_": "my.Trainer", "callbacks": None}, None),
        ({"_target_": "my.Trainer"}, None),
    ],
)
def test_hyperparameters_are_those_of_a_training_without(module, trainer, expected):
    given = copy.deepcopy(trainer)
    module.hparams["info_dict"] = {"trainer": trainer, "data": {"seed": 1}}
    _host.strip_hyperparameters(module, "nequip_decorr")
    info = module.hparams["info_dict"]
    assert "nequip_decorr" not in repr(info)
    assert info["data"] == {"seed": 1}
    if expected is not None:
        assert info["trainer"] == expected
    assert trainer == given  # a copy was changed


@pytest.mark.parametrize("info", [None, {}, {"trainer": None}])
def test_a_module_without_hyperparameters_is_left_alone(module, info):
    module.hparams["info_dict"] = copy.deepcopy(info)
    _host.strip_hyperparameters(module, "nequip_decorr")
    assert module.hparams["info_dict"] == info


def test_softadapt_and_config_are_refused(module):
    trainer = SimpleNamespace(
        callbacks=[LossCoefficientScheduler(schedule={0: {"forces_mse": 1.0}})]
    )
    _host.refuse_unsupported(trainer, module)
    _host.refuse_unsupported(trainer, training_module(EMALightningModule))
    with pytest.raises(
        UserError, match=r"combine ConFIGLightningModule.*use NequIPLight"
    ):
        _host.refuse_unsupported(trainer, training_module(ConFIGLightningModule))
    trainer.callbacks.append(SoftAdapt(beta=1.1, interval="batch", frequency=5))
    with pytest.raises(UserError, match=r"cannot combine SoftAdapt.*use LossCoeff"):
        _host.refuse_unsupported(trainer, module)


PER_TYPE = {
    "_target_": "nequip.train.MetricsManager",
    "metrics": [
        {
            "name": "F_MAE",
            "field": "forces",
            "per_type": True,
            "metric": {"_target_": "nequip.train.MeanAbsoluteError"},
        },
    ],
}


def test_the_names_in_validation_are_those_that_nequip_logs(module):
    manager = instantiate(PER_TYPE, type_names=reference.TYPE_NAMES)
    module.val_metrics.append(manager)
    expected = []
    frame = {**labels(), AtomicDataDict.ATOM_TYPE_KEY: torch.tensor([0, 1, 0, 1, 1])}
    for index, each in enumerate(module.val_metrics):
        each(frame, frame)
        expected += each.compute(prefix=f"val{index}_epoch/")
    assert sorted(_host.validation_names(module)) == sorted(expected)
    assert f"val1_epoch/F_MAE_{reference.TYPE_NAMES[0]}" in expected
    assert "val1_epoch/weighted_sum" not in expected


def trainer_with(**options):
    quiet = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    return Trainer(**{"max_epochs": 4, **quiet, **options})


def test_a_guard_needs_a_validation_metric(module):
    trainer = trainer_with()
    _host.check_guard(trainer, module, "val0_epoch/forces_rmse")
    _host.check_guard(trainer, module, "my_validation/force_error")  # of others
    for name in (
        "val0_epoch/force_rmse",
        "val1_epoch/forces_rmse",
        "train_loss_epoch/x",
    ):
        with pytest.raises(UserError, match=f"validation metric, got '{name}'; set"):
            _host.check_guard(trainer, module, name)


@pytest.mark.parametrize(
    ("options", "guarded"),
    [
        ({"check_val_every_n_epoch": 4}, True),
        ({"check_val_every_n_epoch": 9, "max_epochs": -1}, True),
        ({"check_val_every_n_epoch": None, "val_check_interval": 10}, True),
        ({"check_val_every_n_epoch": 5, "fast_dev_run": True}, True),
        ({"check_val_every_n_epoch": 5}, False),
        ({"limit_val_batches": 0}, False),
        ({"limit_val_batches": 0.0}, False),
    ],
)
def test_a_guard_needs_a_validation(module, options, guarded):
    trainer = trainer_with(**options)
    if guarded:
        _host.check_guard(trainer, module, "val0_epoch/forces_rmse")
        return
    with pytest.raises(UserError, match="schedule target needs validations for"):
        _host.check_guard(trainer, module, "val0_epoch/forces_rmse")


def test_the_logger_speaks_at_info_level(caplog):
    log = _host.rank_zero_logger("nequip_decorr.test")
    with caplog.at_level(logging.INFO):
        log.info("a line")
    assert "a line" in caplog.text


def test_lightning_tells_whether_it_logs():
    # outside a loop it does; the steps of a training are tested with a training
    assert _host.will_log(Trainer(logger=False)) is True
    assert _host.will_log(Trainer(logger=False, log_every_n_steps=0)) is False
