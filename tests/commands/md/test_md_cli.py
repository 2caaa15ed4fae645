"""``nequip-decorr md`` with real models, as a user runs it."""

import hashlib
import re

import ase.io
import pytest
import yaml
from ase.build import molecule

from nequip_decorr.md import results
from tests.support import commands
from tests.support.commands import md

pytestmark = pytest.mark.slow

SHORT = ["--horizon-ps", "0.03", "--replicas", "2", "--temperature", "300"]


def test_every_kind_of_model_file(tmp_path, checkpoint, package, compiled, hfo2):
    found = {}
    for path in (checkpoint, package, compiled):
        done = md(tmp_path, path, hfo2, *SHORT, "--out", path.name)
        assert done.status == 0, done.output
        result = results.load(tmp_path / path.name / "result.json")
        assert result.complete
        assert result.model["species"] == ["Hf", "O"]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert result.model["sha256"] == digest
        assert len(result.replicas) == 4
        found[result.model["kind"]] = result.replicas
    assert set(found) == {"checkpoint", "package", "aotinductor"}
    # one and the same model: float32 rounding is all that tells them apart
    for kind in ("package", "aotinductor"):
        for one, other in zip(found["checkpoint"], found[kind], strict=True):
            assert one.key == other.key
            assert one.trace.potential_energy_eV == pytest.approx(
                other.trace.potential_energy_eV, rel=1e-4
            )


def test_the_end_is_told(tmp_path, checkpoint, hfo2):
    """A model of a few seconds' training does not hold at 6000 K; who did what when
    is in the output.
    """
    done = md(
        tmp_path, checkpoint, f"{hfo2}@0", *SHORT, "--out", "run",
        "--temperature", "300", "6000", "--horizon-ps", "0.2", "--half-step",
    )  # fmt: skip
    assert done.status == 0, done.output
    result = results.load(tmp_path / "run" / "result.json")
    failed = [r for r in result.replicas if r.first]
    assert failed
    for replica in failed:
        assert replica.first.message in done.output
        assert replica.first.half_step_cause is not None
        kept = ase.io.read(tmp_path / "run" / replica.first.last_good_frame)
        assert kept.info["step"] < replica.first.step
        assert kept.get_chemical_formula() == "Hf32O64"
    hot = sum(r.temperature_K == 6000 for r in failed)
    assert re.search(rf"6000 K +{hot} of 2 ", done.output), done.output
    assert "run/result.json" in done.output
    assert "<html" in (tmp_path / "run" / "report.html").read_text()


def test_a_protocol_file_and_flags(tmp_path, checkpoint, hfo2):
    protocol = {
        "preset": "nve-drift",
        "structures": str(hfo2) + "@1",
        "timestep_fs": 0.5,
        "horizon_ps": 0.02,
        "replicas": 3,
        "criteria": {"max_force_eV_per_A": 77.0},
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(protocol))
    done = md(
        tmp_path, checkpoint, "--protocol", "p.yaml", "--replicas", 1, "--seed", 9,
        "--out", "run", "--reference", commands.DATA,
    )  # fmt: skip
    assert done.status == 0, done.output
    result = results.load(tmp_path / "run" / "result.json")
    assert result.fidelity["reference"] == str(commands.DATA)
    assert result.ensemble == "nve"
    assert [r.seed for r in result.replicas] == [9]
    assert result.protocol["criteria"]["max_force_eV_per_A"] == 77.0
    assert result.timestep_fs == 0.5


def test_bad_input_is_one_line_and_exit_2(tmp_path, checkpoint, hfo2):
    ase.io.write(tmp_path / "water.xyz", molecule("H2O"))
    crowded = ase.io.read(hfo2)
    crowded.positions[1] = crowded.positions[0] + 0.3
    ase.io.write(tmp_path / "crowded.extxyz", crowded)
    (tmp_path / "wrong.yaml").write_text("criteria: {max_forces: 3}\n")
    (tmp_path / "foreign.ckpt").write_bytes(b"PK\x03\x04 this is not a model")
    cases = {
        "elements that the model knows": [checkpoint, "water.xyz"],
        "no overlapping atoms": [checkpoint, "crowded.extxyz"],
        "`horizon_ps` to be a finite number > 0": [checkpoint, hfo2, "--horizon-ps", 0],
        "did you mean 'max_force_eV_per_A'": [
            checkpoint, hfo2, "--protocol", "wrong.yaml",
        ],
        "a NequIP checkpoint that loads": ["foreign.ckpt", hfo2],
        "which does not exist": ["none.ckpt", hfo2],
        "expected start structures, got none": [checkpoint],
        "expected a reference": [checkpoint, hfo2, "--reference", "none.csv"],
        "--preset or --protocol": [
            checkpoint, hfo2, "--preset", "solid", "--protocol", "wrong.yaml",
        ],
    }  # fmt: skip
    for message, arguments in cases.items():
        line = md(tmp_path, *arguments, "--out", "run").refusal
        assert line.startswith("nequip-decorr md: expected")
        assert message in line
    assert not (tmp_path / "run").exists()


def test_a_cell_too_small_for_the_cutoff_is_warned_of(tmp_path, checkpoint):
    done = md(tmp_path, checkpoint, f"{commands.DATA}@:3", *SHORT, "--out", "run")
    assert done.status == 0, done.output
    warned = [line for line in done.output.splitlines() if "warning" in line]
    assert len(warned) == 1
    assert "less than twice the model's cutoff of 3.5 A" in warned[0]
