"""RESULTS.md, and the tables in README.md and docs/evidence.md."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from nequip_decorr.nested import flat
from nequip_decorr.study.models import Model
from nequip_decorr.study.report.result import machines

from ..pages import template
from . import tables as t
from .tables import Studies

#: Each study, in the order of RESULTS.md.
STUDIES = {
    "confirmed": "The two most stable schedules of those explored by then, and the "
    "flag `constant`. Nothing was chosen by these numbers.",
    "larger": "54,000 parameters instead of 13,700.",
    "larger-cosine": "The same; its baseline is part of `larger`.",
    "regime": "54,000 parameters, 60 frames at 300 and 600 K.",
    "cold": "60 frames at 300 and 600 K.",
    "longer": "Three times the epochs.",
    "longer-confirmed": "The same; the number of seeds was fixed before they ran.",
    "gnn": "A NequIP GNN, decorrelated in the radial weights of its edges.",
    "gnn-nodes": "The same in its node features; its baseline is part of `gnn`.",
    "explored": "Used to choose what to confirm; and controls without the term: fewer "
    "epochs, weight decay, weight noise, sharpness-aware minimisation (`sam`).",
    "forms": "Other forms of the term; two variants are part of `explored`.",
    "small": "A small part of `confirmed`, for `make evidence-small`.",
}
#: Seeds of a choice with those of its confirmation, and what was chosen.
TOGETHER = {
    ("explored", "confirmed"): "constant",
    ("longer", "longer-confirmed"): "constant-every-step",
}

#: Rows of the tables in docs/evidence.md: study or variant, and what it is.
ELSEWHERE = {
    "larger": "Allegro, 54,000 parameters",
    "regime": "the same, 60 frames at 300 and 600 K",
    "longer": "13,700 parameters, three times the epochs",
    "longer-confirmed": "the same, eight other seeds",
    "gnn": "NequIP GNN, radial weights",
}
CONTROLS = {
    "constant": "`constant`",
    "sam": "sharpness-aware minimisation",
    "sam-half": "the same, half the epochs",
    "epochs-40": "40 epochs of 60",
    "epochs-25": "25 epochs of 60",
    "weight-decay": "weight decay",
    "weight-noise": "weight noise",
}
FORMS = {
    "constant-every-step": "the package's own form",
    "abs": "mean abs(rho)",
    "decorr-form": "variances equalised too",
    "without-envelope": "cutoff envelope removed first",
    "by-element-pair": "centred by pair of elements",
    "two-body-layer": "two-body layer only",
    "later-layers": "later layers only",
}


def results(studies: Studies) -> str:
    """The text of RESULTS.md."""
    models = list(_models(studies).values())
    replicas = [each for m in models for some in m.replicas.values() for each in some]
    both = {
        names: variant
        for names, variant in TOGETHER.items()
        if all(name in studies for name in names)
    }
    explored = studies.get("explored")
    return template(Path(__file__).parent).render(
        t=t,
        table=partial(t.table, studies),
        rows=t.everything(studies),
        head="study | variant | seeds",
        studies=studies,
        about=STUDIES,
        models=len(models),
        origins=list(_origins(studies)),
        replicas=len(replicas),
        exploded=sum(each["explosion"]["happened"] for each in replicas),
        unphysical=sum(each["unphysical"]["happened"] for each in replicas),
        together=t.together(studies, both) if both else "",
        ranks=t.rank_table(explored) if explored else "",
    )


def _models(studies: Studies) -> dict[tuple[str, int], Model]:
    """Each model once, by config and seed: some are part of two studies."""
    return {
        (str(found.registered.identity["variants"][m.variant]["config"]), m.seed): m
        for found in studies.values()
        for m in found.models
    }


def _origins(studies: Studies) -> Iterator[str]:
    """Each machine with its versions, once; versions of this package together."""
    found: dict[str, set[str]] = {}
    for study in studies.values():
        for each in machines(study.records):
            own = {k: v for k, v in flat(each).items() if v}
            ours = str(own.pop("versions.nequip-decorr", ""))
            said = ", ".join(
                f"{k.removeprefix('versions.')} {v}" for k, v in own.items()
            )
            found.setdefault(said, set()).add(ours)
    for said, ours in found.items():
        yield f"Machine: {said}; nequip-decorr {', '.join(sorted(ours))}"


def marked(studies: Studies) -> dict[str, str]:
    """Tables of README.md and docs/evidence.md by name."""
    none = ("without the term", "confirmed", "none")
    flags = [(f"`{name}`", "confirmed", name) for name in ("constant", "cosine")]
    each = ("`constant`, every step", "confirmed", "constant-every-step")
    confirmed = [none, flags[0], each, flags[1]]
    elsewhere = [
        (f"{label} | {len(studies[name].registered.seeds)}", name, each[2])
        for name, label in ELSEWHERE.items()
    ]
    controls = [(label, "explored", name) for name, label in CONTROLS.items()]
    forms = [(label, "forms", name) for name, label in FORMS.items()]
    summary = {f"time to failure, {name}": cell for name, cell in t.TIMES.items()}
    for name, columns in {"forces": t.FORCES, "energies": t.ENERGIES}.items():
        summary[f"{name}, in distribution"] = columns["in distribution"]
    return {
        "summary": t.table(studies, [none, *flags], summary),
        "times": t.table(studies, confirmed, t.TIMES),
        "forces": t.table(studies, confirmed, t.FORCES),
        "energies": t.table(studies, confirmed, t.ENERGIES),
        "elsewhere": t.table(studies, elsewhere, t.TIMES, "model | seeds"),
        "controls": t.table(studies, controls, t.TIMES),
        "forms": t.table(studies, forms, t.TIMES),
        "ranks": t.rank_table(studies["explored"]),
    }
