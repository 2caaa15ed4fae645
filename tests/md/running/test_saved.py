"""Saved states: what grows with a run is appended, and cut or discarded on resume."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nequip_decorr.md import Criteria, RunStoppedError, results, run_stability
from nequip_decorr.md.protocol import Protocol
from tests.support.potentials import AtCall, K, crystal

#: A cold thermostat and a strained crystal: atoms are hotter than thermal motion.
STRAINED = Protocol(
    timestep_fs=2.0,
    horizon_ps=0.06,
    replicas=2,
    temperatures_K=(1.0,),
    record_interval_steps=3,
    frame_interval_steps=7,
    criteria=Criteria(
        runaway_sigma=None, max_force_eV_per_A=None, min_distance_ratio=None
    ),
)
#: The second replica's calls of a whole run; one more is to know the model by.
CALLS = 31


def springs(call=10**9, what=""):
    sites = crystal()
    sites.rattle(0.5, seed=1)
    return AtCall(sites.positions, K, call, what)


def run(folder, model=None, save_every_s=1e9):
    return run_stability(
        model or springs(),
        crystal(),
        STRAINED,
        output=folder,
        save_every_s=save_every_s,
    )


def halfway(folder):
    """Run until the second replica's 14th step; its files that grow."""
    with pytest.raises(RunStoppedError):
        run(folder, springs(46, "interrupt"))
    state = folder / "state"
    return [
        *(state / f"0001_{name}.f8" for name in ("trace", "temperature_K", "kinetic")),
        folder / "frames" / "0001.extxyz",
    ]


def found(folder):
    """All that a run has found, to the last bit."""
    seen = {}
    for path in (folder / "result.traces").glob("*_extremes.npz"):
        with np.load(path) as file:
            seen[path.name] = {name: file[name].tobytes() for name in file.files}
    frames = {p.name: p.read_bytes() for p in (folder / "frames").iterdir()}
    return results.load(folder / "result.json").replicas, seen, frames


def assert_resumed(folder, calls):
    """The rest takes so many calls, and is then as never stopped."""
    again = springs()
    run(folder, again)
    assert again.calls == 1 + calls
    run(folder.with_name("whole"))
    assert found(folder) == found(folder.with_name("whole"))
    assert not list((folder / "state").iterdir())


def test_what_was_appended_after_the_state_is_cut(tmp_path):
    """A process is killed between the two, perhaps in the middle of a row."""
    for path in halfway(tmp_path / "run"):
        with path.open("ab") as handle:
            handle.write(b"x" * 1001)
    assert_resumed(tmp_path / "run", CALLS - 14)


@pytest.mark.parametrize(
    ("which", "how"),
    [
        (which, how)
        for which in range(4)
        for how in ("short", "gone", "other")
        # positions have no checksum
        if (which, how) != (3, "other")
    ],
)
def test_a_replica_whose_files_are_damaged_starts_again(tmp_path, which, how):
    """As after a power cut: the state is there, what was appended before it is not."""
    path = halfway(tmp_path / "run")[which]
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "short":
        path.write_bytes(content[:-1])
    else:
        path.write_bytes(content[:-8] + np.float64(1.5).tobytes())
    assert_resumed(tmp_path / "run", CALLS)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_what_an_ended_replica_refers_to_is_on_the_disk_first(tmp_path, monkeypatch):
    """A power cut must not leave an end without its trace: nothing would make it."""
    synced = []

    def fsync(handle):
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)

    monkeypatch.setattr(os, "fsync", fsync)
    run(tmp_path)
    for index in ("0000", "0001"):
        end = synced.index(f"{index}.json.part")
        assert f"{index}.npz.part" in synced[:end]
        assert f"{index}_extremes.npz.part" in synced[:end]


class FullDisk(AtCall):
    """At one call, the disk is full for what the second replica appends."""

    folder: Path

    def field(self, positions):
        if self.calls == self.call:
            path = self.folder / "state" / "0001_temperature_K.f8"
            path.unlink()
            path.symlink_to("/dev/full")
        return super().field(positions)


def full_disk(folder, call):
    model = FullDisk(crystal().positions, K, call, "")
    model.folder = folder
    return model


def test_a_disk_that_is_full_for_what_is_appended(tmp_path):
    with pytest.raises(RunStoppedError, match="no disk space is left") as stopped:
        run(tmp_path, full_disk(tmp_path, 45), save_every_s=0.0)
    assert stopped.value.reason == "disk_full"
    assert [r.censored_by for r in stopped.value.result.replicas] == ["horizon"]
    assert run(tmp_path, full_disk(tmp_path, 10**9)).complete


class Written(AtCall):
    """Notes at some calls how much the process has written."""

    def field(self, positions):
        if self.calls in {100, 200, 600, 700}:
            counters = Path("/proc/self/io").read_text().splitlines()
            written = next(line for line in counters if line.startswith("wchar"))
            self.bytes = {**getattr(self, "bytes", {}), self.calls: int(written[7:])}
        return super().field(positions)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux")
def test_a_save_costs_what_is_new(tmp_path):
    """A state at each step: a hundred take as much late in a run as early."""
    sites = crystal()
    sites.rattle(0.5, seed=1)
    model = Written(sites.positions, K, 10**9, "")
    how = replace(STRAINED, ensemble="nve", horizon_ps=1.5, replicas=1)
    run_stability(model, crystal(), how, output=tmp_path, save_every_s=0.0)
    early = model.bytes[200] - model.bytes[100]
    late = model.bytes[700] - model.bytes[600]
    assert late < 1.05 * early
    with np.load(tmp_path / "result.traces" / "0000_extremes.npz") as seen:
        assert len(seen["kinetic"]) > 700
