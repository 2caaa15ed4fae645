"""Errors of the pair distributions of two models, over a common window of time.

Each replica is measured until it fails. A model that fails early would be measured only
early, when its structure has had little time to go wrong. Paired replicas are therefore
compared over the times at which both were stable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from nequip_decorr.errors import UserError
from nequip_decorr.md.frames import Array
from nequip_decorr.md.results import Replica, RunResult
from nequip_decorr.md.statistics.fidelity import (
    frames_between,
    stable_window,
    times_of,
)
from nequip_decorr.md.statistics.pairing import pair_replicas
from nequip_decorr.md.statistics.rdf import (
    PairDistributions,
    pair_distributions,
    read_reference,
)
from nequip_decorr.md.statistics.rdf_error import PairError, compare_distributions


@dataclass(frozen=True)
class CommonWindow:
    """Errors of two models over the same times, for one formula and temperature.

    Attributes:
        formula: of the replicas.
        temperature_K: of the replicas.
        kind: ``g(r)`` or ``h(r)``.
        window_ps: times of the first and the last frame.
        n_frames: frames of the first and of the second model.
        pairs: errors of the first and of the second model, by element pair.
    """

    formula: str
    temperature_K: float
    kind: str
    window_ps: tuple[float, float]
    n_frames: tuple[int, int]
    pairs: dict[str, tuple[PairError, PairError]]


def compare_common_window(
    runs: tuple[RunResult, RunResult],
    folders: tuple[Path, Path],
    names: tuple[str, str],
) -> tuple[list[CommonWindow], list[str]]:
    """Errors of two runs that were compared with one reference.

    Args:
        runs: both results.
        folders: folders of their result files, with the recorded frames.
        names: names of both runs, for messages.

    Returns:
        An entry for each formula and temperature, and what could not be compared and
        why. Both are empty if neither run has a reference.

    Raises:
        UserError: as :func:`~nequip_decorr.md.statistics.pairing.pair_replicas`, or for
            frames without a time.
    """
    first, second = ((run.fidelity or {}).get("reference") for run in runs)
    if first is None and second is None:
        return [], []
    if first is None or first != second:
        return [], [
            "pair distributions are not compared: the reference is "
            f"{first or 'none'} in {names[0]} and {second or 'none'} in {names[1]}"
        ]
    try:
        known = read_reference(Path(first))
    except UserError as error:
        return [], [f"pair distributions are not compared: {error}"]
    groups: dict[tuple[str, float], list[tuple[Replica, Replica]]] = {}
    for pair in pair_replicas(*runs, names):
        if all(map(_has_frames, pair, folders)):
            key = (pair[0].formula, pair[0].temperature_K)
            groups.setdefault(key, []).append(pair)
    if not groups:
        return [], ["pair distributions are not compared: no frames of both models"]
    found: list[CommonWindow] = []
    notes: list[str] = []
    for (formula, kelvin), pairs in sorted(groups.items()):
        frames = _common_frames(pairs, folders)
        try:
            found.append(_measured(formula, kelvin, frames, known))
        except UserError as error:
            why = error if all(frames) else "no frame at which both models were stable"
            where = f"{formula} at {kelvin:g} K"
            notes.append(f"pair distributions of {where} are not compared: {why}")
    return found, notes


def _has_frames(replica: Replica, folder: Path) -> bool:
    return replica.trajectory is not None and (folder / replica.trajectory).is_file()


def _common_frames(
    pairs: Sequence[tuple[Replica, Replica]], folders: tuple[Path, Path]
) -> tuple[list[Atoms], list[Atoms]]:
    """Frames of both models while both replicas of a pair were stable."""
    frames: tuple[list[Atoms], list[Atoms]] = ([], [])
    for pair in pairs:
        windows = [stable_window(replica) for replica in pair]
        start = max(window[0] for window in windows)
        end = min(window[1] for window in windows)
        for side, replica, folder in zip(frames, pair, folders, strict=True):
            side.extend(frames_between(folder / str(replica.trajectory), start, end))
    return frames


def _measured(
    formula: str,
    kelvin: float,
    frames: tuple[list[Atoms], list[Atoms]],
    known: PairDistributions | Mapping[str, Array],
) -> CommonWindow:
    models = [pair_distributions(side) for side in frames]
    errors = [compare_distributions(model, known) for model in models]
    return CommonWindow(
        formula=formula,
        temperature_K=kelvin,
        kind=models[0].kind,
        window_ps=times_of([*frames[0], *frames[1]]),
        n_frames=(len(frames[0]), len(frames[1])),
        pairs={
            name: (errors[0][name], errors[1][name])
            for name in errors[0]
            if name in errors[1]
        },
    )
