"""Finds the replicas in files, folders, and folders of folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from typing import Any

from nequip_decorr.errors import UserError
from nequip_decorr.md.results import RESULT_NAME
from nequip_decorr.md.trajectories.streams import CutOffError, open_lines
from nequip_decorr.paths import check_file

#: Formats by the names of their files; in a folder the first one that is there counts.
FORMATS: Mapping[str, Sequence[str]] = {
    "dump": ("*.lammpstrj", "*.dump", "dump.*", "*.lammpsdump"),
    "traj": ("*.traj",),
    "vasprun": ("vasprun*.xml", "*vasprun.xml"),
    "xdatcar": ("XDATCAR*", "*XDATCAR"),
    "xyz": ("*.extxyz", "*.xyz"),
}

#: Formats of text, which may be compressed.
COMPRESSED = ("dump", "vasprun", "xdatcar", "xyz")

#: Inputs and logs of LAMMPS and VASP, which mark the folder of a run.
RUN_FILES = ("in.*", "*.in", "log.lammps*", "INCAR")

#: What ``nequip-decorr md --write-lammps`` leaves beside its replicas.
REPLICAS_NAME = "replicas.json"
REPLICAS_SCHEMA = "nequip_decorr.lammps/1"


@dataclass(frozen=True)
class Source:
    """The files of one replica.

    Attributes:
        name: name of the replica, by which replicas of two models are paired.
        path: the trajectory.
        format: one of :data:`FORMATS`.
        log: LAMMPS log of the run, or None.
        plan: entry for the replica in :data:`REPLICAS_NAME`, or None.
    """

    name: str
    path: Path
    format: str
    log: Path | None = None
    plan: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Layout:
    """Replicas, and what is known of them.

    Attributes:
        sources: those with a trajectory.
        written: the content of :data:`REPLICAS_NAME`, or None.
        missing: names of those without.
    """

    sources: tuple[Source, ...]
    written: Mapping[str, Any] | None
    missing: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Names of all replicas, in their order."""
        return sorted([*(s.name for s in self.sources), *self.missing], key=_natural)


def find_replicas(paths: Sequence[Path]) -> Layout:
    """Find the replicas at the given paths, in the order of their names.

    A file is a replica, and so is a folder that contains one trajectory. Otherwise its
    subfolders are searched, and replicas are named by their paths in it.

    Raises:
        UserError: if a path has no trajectory, a folder has several, or two replicas
            have the same name.
    """
    if len(paths) == 1 and (paths[0] / REPLICAS_NAME).is_file():
        return _written(paths[0])
    if any((path / REPLICAS_NAME).is_file() for path in paths):
        raise UserError(
            f"expected one folder with {REPLICAS_NAME}, got {len(paths)} paths; judge "
            "each by itself and compare the results"
        )
    sources: list[Source] = []
    missing: list[str] = []
    names = _names([path for path in paths if not path.is_dir()])
    for path in paths:
        if path.is_dir():
            found, absent = _in_folder(path)
            sources += found
            missing += absent
        else:
            sources.append(_file(path, names[path]))
    if not sources:
        raise _none_in(paths[0])
    sources.sort(key=lambda source: _natural(source.name))
    for name, group in groupby(sources, key=lambda source: source.name):
        twice = [str(source.path) for source in group]
        if len(twice) > 1:
            raise UserError(
                f"expected replicas with different names, got {name!r} for "
                f"{' and '.join(twice[:2])}; give the folder that both are in"
            )
    return Layout(tuple(sources), None, tuple(missing))


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """The shortest names that are all different; those of the folders if none are."""

    def plain(path: Path) -> str:
        return path.name.removesuffix(".gz")

    ways: list[Callable[[Path], str]] = [
        stem_of,
        lambda path: path.resolve().parent.name,  # dump.lammpstrj of several folders
        plain,  # dump.1, dump.2
        lambda path: f"{path.resolve().parent.name}/{plain(path)}",
    ]
    found = [{path: way(path) for path in files} for way in ways]
    apart = [names for names in found if len(set(names.values())) == len(files)]
    return (apart or found[1:])[0]


def format_of(path: Path) -> str | None:
    """The format implied by a file name, or None."""
    name = path.name
    found = []
    for format_, patterns in FORMATS.items():
        plain = name.removesuffix(".gz") if format_ in COMPRESSED else name
        if any(fnmatch(plain, pattern) for pattern in patterns):
            found.append(format_)
    # dump.xyz is a dump by its beginning only
    return found[-1] if found else None


def _file(path: Path, name: str) -> Source:
    format_ = format_of(path)
    check_file(path, "a trajectory")
    if format_ is None:
        known = ", ".join(pattern for group in FORMATS.values() for pattern in group)
        raise UserError(
            f"expected a trajectory whose name shows its format ({known}), got {path}; "
            "rename it"
        )
    alone = [p for p in path.parent.iterdir() if format_of(p) == format_] == [path]
    return Source(name, path, format_, _log(path.parent) if alone else None)


def _in_folder(folder: Path) -> tuple[list[Source], list[str]]:
    """Replicas in a folder: itself, or those below it; and runs without trajectory."""
    name = folder.resolve().name
    own = _trajectory(folder)
    if own is not None and not _is_start(own, folder):
        return [Source(name, own, format_of(own) or "", _log(folder))], []
    found: list[Source] = []
    missing: list[str] = []
    for below in sorted(p for p in folder.rglob("*") if p.is_dir()):
        if _is_result(below, folder):
            continue
        path, name_below = _trajectory(below), below.relative_to(folder).as_posix()
        if path is not None:
            format_ = format_of(path) or ""
            found.append(Source(name_below, path, format_, _log(below)))
        elif _is_run(below):
            missing.append(name_below)
    if not found and not missing:
        if not _is_run(folder):
            raise _none_in(folder)
        return [], [name]
    holders = {str(parent) for source in found for parent in Path(source.name).parents}
    return found, [each for each in missing if each not in holders]


def _is_start(path: Path, folder: Path) -> bool:
    """Whether a file is the start structure of the replicas in folders beside it."""
    if format_of(path) != "xyz" or not _one_frame(path):
        return False
    below = (p for p in folder.rglob("*") if p.is_file() and p.parent != folder)
    return any(format_of(p) and not _is_result(p.parent, folder) for p in below)


def _one_frame(path: Path) -> bool:
    """Whether an xyz file ends with its first frame."""
    try:
        with open_lines(path) as lines:
            first = lines.next().strip()
            if not first.isdecimal():
                return False
            lines.take(int(first) + 1)
            return not lines.next().strip()
    except CutOffError:
        return False


def _none_in(folder: Path) -> UserError:
    known = ", ".join(pattern for group in FORMATS.values() for pattern in group)
    return UserError(
        f"expected trajectories in {folder} or its folders, got none named {known}; "
        "name the files themselves"
    )


def _is_run(folder: Path) -> bool:
    """Whether a folder has the input or the log of a simulation."""
    return any(fnmatch(p.name, name) for p in folder.iterdir() for name in RUN_FILES)


def _is_result(below: Path, folder: Path) -> bool:
    """Whether a folder belongs to a result of `md` or `judge`, not to a simulation."""
    between = [below, *below.parents][: len(below.relative_to(folder).parts)]
    return any((place / RESULT_NAME).is_file() for place in between)


def _trajectory(folder: Path) -> Path | None:
    """The only trajectory in a folder; None if there is none."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for format_ in FORMATS:
        found = [path for path in files if format_of(path) == format_]
        if len(found) > 1:
            raise UserError(
                f"expected one trajectory in {folder}, got {len(found)}: "
                f"{', '.join(path.name for path in found[:3])}"
                f"{' ...' if len(found) > 3 else ''}; name the files if each is a "
                "replica, or join the parts of one in their order"
            )
        if found:
            return found[0]
    return None


def _log(folder: Path) -> Path | None:
    named = [folder / "log.lammps", folder / "log.lammps.gz"]
    return next((path for path in named if path.is_file()), None)


def stem_of(path: Path) -> str:
    """``a.1`` for ``a.1.xyz`` and ``a.1.xyz.gz``."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts ``r2`` before ``r10``."""
    return [
        (int("".join(group)), "") if digits else (-1, "".join(group))
        for digits, group in groupby(name, key=str.isdecimal)
    ]


def _written(folder: Path) -> Layout:
    """Replicas written by ``md --write-lammps``, with their entries."""
    path = folder / REPLICAS_NAME
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        plans = [(plan, str(plan["folder"])) for plan in written["replicas"]]
        schema = written["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"expected {path} as `nequip-decorr md --write-lammps` writes it, got "
            f"{type(error).__name__}: {error}; write the folder again"
        ) from error
    if schema != REPLICAS_SCHEMA:
        raise UserError(
            f"expected {path} with schema '{REPLICAS_SCHEMA}', got {schema!r}; judge "
            "it with the version that wrote it"
        )
    sources: list[Source] = []
    missing: list[str] = []
    for plan, name in plans:
        place = folder / name
        found = _trajectory(place) if place.is_dir() else None
        if found is None:
            missing.append(name)
        else:
            format_ = format_of(found) or ""
            sources.append(Source(name, found, format_, _log(place), plan))
    if not sources:
        raise UserError(
            f"expected dumps in the folders of {folder}, got none; run LAMMPS first"
        )
    return Layout(tuple(sources), written, tuple(missing))
