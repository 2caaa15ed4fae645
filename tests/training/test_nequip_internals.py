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

import pytest
import torch
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
from nequip_decorr.training.stripping import strip_checkpoint, strip_hyperparameters
from tests.support import reference
from tests.support.trainings import (
    coefficients,
    labels,
    new_loss,
    trainer_with,
)

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


def test_a_trainer_says_no_limit_as_the_callback_reads_it():
    trainer = trainer_with()
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


def test_several_models_are_refused(module):
    module.model["second"] = module.model["sole_model"]
    with pytest.raises(UserError, match=r"one model, got 2: \['sole_model', 'second'"):
        _host.sole_model(module)


def test_a_model_without_allegro_layers():
    assert nequip_models.find_allegro(reference.build(reference.NEQUIP_GNN)) is None


def test_a_checkpoint_is_stripped_to_that_of_a_plain_module(module, built):
    metric = EdgeCorrelation(layer_dim=4)
    _host.add_metric(module.loss, "ec", metric)
    _host.add_metric(module.val_metrics[0], "ec", EdgeCorrelation(layer_dim=4))
    _host.set_coefficient(module.loss, "ec", 0.3)
    frame = labels()
    module.loss({**frame, "edge_features": torch.randn(9, 4)}, frame)
    module.loss.compute()
    checkpoint = {"state_dict": module.state_dict()}
    strip_checkpoint(checkpoint, "ec", ["loss", "val_metrics"])
    state, plain = checkpoint["state_dict"], built.state_dict()
    assert list(state) == list(plain)
    key = "loss._extra_state"
    assert state[key]["coeff_dict"] == plain[key]["coeff_dict"]
    for key in ("loss._extra_state", "val_metrics.0._extra_state"):
        for field, values in state[key].items():
            assert list(values) == list(plain[key][field])
    # a metric of the user's own that is called the same is none of ours
    places = ("loss", "val_metrics.0", "test_metrics.0")
    theirs = {f"{place}._extra_state": {"coeff_dict": {"ec": 0.1}} for place in places}
    strip_checkpoint({"state_dict": theirs}, "ec", ["val_metrics"])
    kept = [bool(each["coeff_dict"]) for each in theirs.values()]
    assert kept == [True, False, True]
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
        (
            {"_target_": "my.Trainer", "callbacks": {"a": OURS, "b": OTHER}},
            {"_target_": "my.Trainer", "callbacks": {"b": OTHER}},
        ),
        ({"_target_": "my.Trainer", "callbacks": {"stop": True, "swa": None}}, None),
        ({"_target_": "my.Trainer", "callbacks": None}, None),
        ({"_target_": "my.Trainer"}, None),
    ],
)
def test_hyperparameters_are_those_of_a_training_without(module, trainer, expected):
    given = copy.deepcopy(trainer)
    module.hparams["info_dict"] = {"trainer": trainer, "data": {"seed": 1}}
    strip_hyperparameters(module, "nequip_decorr")
    info = module.hparams["info_dict"]
    assert "nequip_decorr" not in repr(info)
    assert info["data"] == {"seed": 1}
    if expected is not None:
        assert info["trainer"] == expected
    assert trainer == given  # a copy was changed


@pytest.mark.parametrize("info", [None, {}, {"trainer": None}])
def test_a_module_without_hyperparameters_is_left_alone(module, info):
    module.hparams["info_dict"] = copy.deepcopy(info)
    strip_hyperparameters(module, "nequip_decorr")
    assert module.hparams["info_dict"] == info


def test_the_logger_speaks_at_info_level(caplog):
    log = _host.rank_zero_logger("nequip_decorr.test")
    with caplog.at_level(logging.INFO):
        log.info("a line")
    assert "a line" in caplog.text


def test_lightning_tells_whether_it_logs():
    # outside a loop it does; the steps of a training are tested with a training
    assert _host.will_log(Trainer(logger=False)) is True
    assert _host.will_log(Trainer(logger=False, log_every_n_steps=0)) is False
