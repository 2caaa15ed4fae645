"""Judge trajectories of other programs as `nequip-decorr md` judges its own.

All files are found, opened and checked first. Then each is read once, frame by frame,
and its events are collected in a result like that of `md`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.md import results
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.running.folder import RunFolder
from nequip_decorr.md.running.replica import as_event
from nequip_decorr.md.trajectories.judging import Found, atoms_of
from nequip_decorr.md.trajectories.layout import Layout, find_replicas
from nequip_decorr.md.trajectories.opening import (
    NoFramesError,
    Opened,
    Reading,
    open_replica,
)
from nequip_decorr.md.trajectories.plans import Plan, check_start, plan_all, planned
from nequip_decorr.md.trajectories.replica import Judged, judge_replica
from nequip_decorr.md.trajectories.settings import Request, settle
from nequip_decorr.md.trajectories.snapshot import Warn
from nequip_decorr.wording import counted


def judge_trajectories(
    request: Request,
    output: Path,
    *,
    machine: dict[str, Any],
    warn: Warn,
    on_replica: Callable[[str, int, int], object] = lambda *_: None,
) -> results.RunResult:
    """Judge all replicas and write the result.

    Args:
        request: what to judge, and how.
        output: output folder, new or from an earlier `judge`.
        machine: description of the machine, for the result file.
        warn: called with warnings about the files.
        on_replica: called with name, index and number of replicas as each begins.

    Raises:
        UserError: for files that cannot be judged; raised before any file is read to
            its end if the first frames show it.
    """
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        warn(line)

    found = find_replicas(request.paths)
    opened, without = _open_all(found, request.reading)
    if without:
        note(_left_out(without, len(found.names)))
    settled = settle(request, found.written, opened)
    protocol = settled.protocol
    if found.written is not None:
        plans = [planned(replica) for replica in opened]
    else:
        kelvin = protocol.temperatures_K[0]
        plans = plan_all(opened, found.names, kelvin, request.n_structures, note)
    for plan in plans:
        check_start(plan, protocol, sound=request.reading.start is None)
    check_output(output)
    judged = []
    for index, plan in enumerate(plans):
        on_replica(plan.opened.source.name, index, len(plans))
        judged.append(
            judge_replica(
                plan.opened,
                request.reading,
                protocol,
                plan.temperature_K,
                n_steps=protocol.n_steps if settled.horizon_given else None,
                warn=note,
            )
        )
    if not settled.horizon_given:
        protocol = replace(protocol, horizon_ps=_longest_ps(plans, judged, protocol))
        if all("explosion" in one.events for one in judged):
            note(
                "all replicas explode, and the horizon is the time of the last "
                f"explosion, {protocol.horizon_ps:g} ps; give the intended length of "
                "the simulations with --horizon-ps"
            )
    intervals = {plan.opened.interval_steps for plan in plans} - {None}
    protocol = replace(
        protocol,
        frame_interval_steps=max(filter(None, intervals), default=None),
        replicas=max(Counter(plan.structure for plan in plans).values()),
    )
    folder = RunFolder(output)
    (folder.path / "frames").mkdir(parents=True, exist_ok=True)
    result = results.RunResult(
        model=_model(found.written, request, plans),
        protocol=protocol.to_dict(),
        machine=machine,
        replicas=tuple(
            _replica(index, plan, one, protocol, folder)
            for index, (plan, one) in enumerate(zip(plans, judged, strict=True))
        ),
        complete=not without,
        source={
            "files": [str(plan.opened.source.path) for plan in plans],
            "horizon_from": "option" if settled.horizon_given else "longest replica",
            "frame_interval_steps": sorted(filter(None, intervals)),
            "not_tested": _not_tested(judged),
            "notes": notes,
        },
    )
    results.save(result, folder.result_path)
    return result


def _open_all(found: Layout, reading: Reading) -> tuple[list[Opened], list[str]]:
    """The replicas that have frames, and the names of the others.

    Raises:
        NoFramesError: if none has frames.
        UserError: for files that cannot be judged.
    """
    opened: list[Opened] = []
    empty: list[NoFramesError] = []
    without = set(found.missing)
    for source in found.sources:
        try:
            opened.append(open_replica(source, reading))
        except NoFramesError as error:
            empty.append(error)
            without.add(source.name)
    if not opened:
        raise empty[0]
    return opened, [name for name in found.names if name in without]


def _left_out(names: Sequence[str], n: int) -> str:
    shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
    verbs = "has no frames and is" if len(names) == 1 else "have no frames and are"
    return f"{len(names)} of {counted(n, 'replica')} {verbs} left out: {shown}"


def check_output(output: Path) -> None:
    """Refuse an output folder that contains anything but an earlier `judge` result.

    Raises:
        UserError: if it does.
    """
    if not output.exists():
        return
    ours = {results.RESULT_NAME, "result.traces", "frames", "report.html"}
    there = {path.name for path in output.iterdir()} if output.is_dir() else {""}
    judged = (output / results.RESULT_NAME).exists() and (
        results.load(output / results.RESULT_NAME).source is not None
    )
    if there - ours or (there and not judged):
        raise UserError(
            f"expected a new folder or one of `nequip-decorr judge`, got {output} with "
            "other files in it; choose another --out"
        )


def _longest_ps(
    plans: Sequence[Plan], judged: Sequence[Judged], protocol: Protocol
) -> float:
    """Length of the longest replica, ps."""
    steps = []
    for plan, one in zip(plans, judged, strict=True):
        last = one.last_step
        if "explosion" in one.events:
            last = one.events["explosion"].step
        elif _ran_out(one, plan, one.finished_step):
            last = one.finished_step or last
        steps.append(last)
    if max(steps) < 1:
        raise UserError(
            "expected trajectories of at least one step, got only first frames; give "
            "--horizon-ps or longer ones"
        )
    return protocol.time_ps(max(steps))


def _ran_out(one: Judged, plan: Plan, step: int | None) -> bool:
    """Whether the run reached its end at ``step`` with no frame missing before it."""
    interval = plan.opened.interval_steps
    if one.finished_step is None or step is None or interval is None:
        return False
    return one.finished_step >= step and one.last_step + interval > step


def _replica(
    index: int, plan: Plan, one: Judged, protocol: Protocol, folder: RunFolder
) -> results.Replica:
    explosion = one.events.get("explosion")
    last, censored_by = one.last_step, None
    if explosion is not None:
        last = explosion.step
    elif one.events and protocol.until == "first":
        last = next(iter(one.events.values())).step
    elif last >= protocol.n_steps or _ran_out(one, plan, protocol.n_steps):
        last, censored_by = protocol.n_steps, "horizon"
    else:
        censored_by = "file_ends"
    events = {
        kind: replace(
            as_event(found.violation, found.step, protocol),
            last_good_frame=_keep_frame(found, folder, index, plan, protocol),
        )
        for kind, found in one.events.items()
    }
    atoms = plan.opened.start
    return results.Replica(
        index=index,
        structure=plan.structure,
        structure_name=plan.structure_name,
        formula=atoms.get_chemical_formula(),
        n_atoms=len(atoms),
        temperature_K=plan.temperature_K,
        seed=plan.seed,
        time_ps=(
            protocol.horizon_ps if censored_by == "horizon" else protocol.time_ps(last)
        ),
        unphysical=events.get("unphysical"),
        explosion=events.get("explosion"),
        censored_by=censored_by,
        trace=one.trace,
        structure_sha256=plan.structure_sha256,
        name=plan.name,
    )


def _keep_frame(
    found: Found, folder: RunFolder, index: int, plan: Plan, protocol: Protocol
) -> str | None:
    """Write the last good frame before an event; its path from the result file."""
    if found.last_good is None:
        return None
    atoms = atoms_of(found.last_good)
    step = (found.last_good.step or 0) - plan.opened.first_step
    atoms.info.update(step=step, time_ps=protocol.time_ps(step), replica=index)
    kind = results.kind_of(found.violation.cause)
    return folder.keep_frame(index, kind, atoms)


def _not_tested(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Tests that were not made, with the reason and the number of replicas."""
    counts = Counter(item for one in judged for item in one.not_tested.items())
    return [
        {"test": test, "why": why, "n_replicas": n} for (test, why), n in counts.items()
    ]


def _model(written: Any, request: Request, plans: Sequence[Plan]) -> dict[str, Any]:
    """Description of the model for the result, as far as it is known."""
    symbols = sorted({s for p in plans for s in p.opened.start.get_chemical_symbols()})
    if written is not None:
        model = written["model"]
        return {
            "path": model["path"],
            "sha256": model["sha256"],
            "kind": f"LAMMPS pair_style {model['pair_style']}",
            "species": list(model["species"]),
        }
    paths = request.paths
    where = paths[0] if len(paths) == 1 else paths[0].parent
    return {
        "path": str(where),
        "sha256": None,
        "kind": "trajectories",
        "species": symbols,
    }
