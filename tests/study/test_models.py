"""What a study knows of a model, from the records of its tasks."""

from __future__ import annotations

from nequip_decorr.study.folder import Registered
from nequip_decorr.study.models import models
from nequip_decorr.study.tasks import Task


def test_a_drift_is_no_condition() -> None:
    """A simulation in NVE gives slopes, one that failed none; others give replicas."""
    simulations = {
        name: {"protocol": {"ensemble": ensemble}}
        for name, ensemble in (("calm", "nve"), ("hot", "langevin"))
    }
    tasks = tuple(Task(f"md-{name}", "none", 1, (), "") for name in simulations)
    registered = Registered({"md": simulations}, (), {}, {}, "", tasks)
    replica = {"temperature_K": 600.0}
    shared = {"horizon_ps": 2.0, "timestep_fs": 1.0, "rdf": [], "replicas": [replica]}
    drifts = {"calm": [{"slope_meV_per_atom_ps": 0.25}, None], "hot": []}
    records = {
        task.key: {
            "status": "done",
            "result": {**shared, "drift": drifts[task.stage.removeprefix("md-")]},
        }
        for task in tasks
    }
    (model,) = models(registered, records)
    assert model.drift == {"calm": [0.25, None]}
    assert model.replicas == {"hot@600K": [replica]}
