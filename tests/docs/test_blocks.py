"""Commands, configs and code in the README and the documentation work as written."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ase.io
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from nequip_decorr.md import Protocol, read_protocol
from nequip_decorr.study.config import read_study
from nequip_decorr.study.plan import make_plan
from nequip_decorr.training.callback import EdgeDecorrelation
from tests.docs.blocks import KINDS, ROOT, Block, all_blocks, pages
from tests.support.commands import ENTRY_POINTS, run

BLOCKS = all_blocks()
#: makes a training one of seconds; else commands run as they are written
A_FEW = (
    "trainer.max_epochs=1",
    "+trainer.limit_train_batches=2",
    "+trainer.limit_val_batches=1",
    "+trainer.limit_test_batches=1",
)


def of(language: str, kind: str) -> list[Any]:
    return [
        pytest.param(block, id=block.where)
        for block in BLOCKS
        if (block.language, block.kind) == (language, kind)
    ]


def test_each_block_says_how_it_is_tested() -> None:
    unknown = [b.where for b in BLOCKS if b.kind not in KINDS[b.language]]
    assert not unknown
    without_reason = [
        b.where
        for b in BLOCKS
        if b.kind == "norun" and not b.marker.partition(":")[2].strip()
    ]
    assert not without_reason


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    local = [t for t in targets if not t.startswith(("http", "_generated"))]
    assert [t for t in local if not (page.parent / t).exists()] == []


# --- commands and code, in a folder like the root of the repository ---


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A model under several names, start structures, a protocol, two runs of MD."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "configs").symlink_to(ROOT / "configs")
    for name in (".", "with", "without"):
        (folder / name).mkdir(exist_ok=True)
        shutil.copy(checkpoint, folder / name / "best.ckpt")
    frames = ase.io.read(ROOT / "configs" / "data" / "hfo2_val.extxyz", ":2")
    ase.io.write(folder / "start.extxyz", frames)
    (protocol,) = (b for b in BLOCKS if b.kind == "protocol")
    (folder / "protocol.yaml").write_text(protocol.text)
    for name in ("with", "without"):
        arguments = ["md", f"{name}/best.ckpt", "start.extxyz", "--horizon-ps", "0.005"]
        md = run("nequip-decorr", [*arguments, "--out", f"md-{name}"], folder)
        assert md.status == 0, md.output
    return folder


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path) -> Path:
    """A copy of it for one block."""
    folder = tmp_path / "root"
    shutil.copytree(prepared, folder, symlinks=True)
    return folder


def execute(line: str, folder: Path) -> str:
    """Run one command line; the commands of NequIP and ours as tests do."""
    words = shlex.split(line.replace("$PWD", str(folder)))
    training = words[0] == "nequip-train"
    if training:
        words += A_FEW
    if words[0] in ENTRY_POINTS and not {"|", ">"} & set(words):
        done = run(words[0], words[1:], folder)
        assert done.status == 0, done.output
        return done.output
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", line],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shell.returncode == 0, shell.stdout + shell.stderr
    return shell.stdout


def one_space(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.slow
@pytest.mark.parametrize("block", of("bash", ""))
def test_commands_run(block: Block, workspace: Path) -> None:
    for made in re.findall(r"--out (md-\S+)", block.text):
        shutil.rmtree(workspace / made, ignore_errors=True)
    lines = block.text.replace("\\\n", " ").splitlines()
    output = one_space("\n".join(execute(line, workspace) for line in lines))
    for heading in re.findall(r"^.*(?:\[95 %\]|effective rank).*$", block.shown, re.M):
        if not any(character.isdigit() for character in heading.replace("95 %", "")):
            assert one_space(heading) in output


@pytest.mark.slow
@pytest.mark.parametrize("block", of("python", "run"))
def test_code_runs(block: Block, workspace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block.text],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# --- configs ---


@pytest.mark.parametrize("block", of("yaml", "flag"))
def test_configs_with_the_flag_compose(block: Block, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(block.text)
    with initialize_config_dir(str(tmp_path), version_base=None):
        config = compose("mine")
    own = yaml.safe_load(block.text)["nequip_decorr"]
    assert OmegaConf.merge(config.nequip_decorr, own) == config.nequip_decorr
    EdgeDecorrelation(**config.nequip_decorr)


@pytest.mark.parametrize("block", of("yaml", "callback"))
def test_callbacks_are_built(block: Block) -> None:
    (callback,) = yaml.safe_load(block.text)["trainer"]["callbacks"]
    assert isinstance(instantiate(callback), EdgeDecorrelation)


@pytest.mark.parametrize("block", of("yaml", "metric"))
def test_losses_are_built(block: Block) -> None:
    loss = instantiate(yaml.safe_load(block.text)["training_module"]["loss"])
    assert "edge_correlation" in loss.entries


@pytest.mark.parametrize("block", of("yaml", "protocol"))
def test_protocols_are_read(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "protocol.yaml"
    path.write_text(block.text)
    assert read_protocol(path) != Protocol()


@pytest.mark.parametrize("block", of("yaml", "study"))
def test_studies_are_planned(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them in a folder like that of the shipped configs."""
    monkeypatch.chdir(ROOT)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    path = tmp_path / "configs" / "study.yaml"
    path.write_text(block.text)
    assert make_plan(read_study(path), tmp_path / "out").tasks
