"""A force field outside NequIP: the example of the documentation as it stands.

Needs PyTorch Geometric, and fails without it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nequip_decorr.correlation.functional import penalty
from nequip_decorr.hooks import Tap
from tests.docs.blocks import ROOT, blocks_of
from tests.support.commands import DATA

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def single_precision() -> Iterator[None]:
    """What a new process has; building a NequIP model in this one changes it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


def examples() -> tuple[str, str]:
    """The two code blocks of the page: a training loop, and blocks by irrep."""
    page = ROOT / "docs" / "other_force_fields.md"
    loop, blocks = (b.text for b in blocks_of(page) if b.language == "python")
    return loop, blocks


def trained(folder: Path, monkeypatch: pytest.MonkeyPatch, coefficient: float) -> Any:
    """Run the example on the test's frames; the model that it trained."""
    shutil.copyfile(DATA, folder / "frames.extxyz")
    monkeypatch.chdir(folder)
    code, _ = examples()
    assert code.count("coefficient = 1.0") == 1
    names: dict[str, Any] = {}
    exec(code.replace("coefficient = 1.0", f"coefficient = {coefficient}"), names)
    return names


def correlation(names: dict[str, Any]) -> float:
    """Mean rho^2 of both interactions' filters over some frames, by loops."""
    found: list[list[np.ndarray]] = [[], []]
    handles = [
        interaction.mlp.register_forward_hook(
            lambda _, inputs, result, kept=kept: kept.append(result.detach().numpy())
        )
        for interaction, kept in zip(names["model"].interactions, found, strict=True)
    ]
    for frame in names["frames"][:5]:
        pos = torch.tensor(frame.positions, dtype=torch.float32)
        names["model"](torch.tensor(frame.numbers), pos)
    for handle in handles:
        handle.remove()
    squares = []
    for kept in found:
        r = np.corrcoef(np.concatenate(kept).astype(float), rowvar=False)
        squares.append(np.mean([r[i, j] ** 2 for i in range(len(r)) for j in range(i)]))
    return float(np.mean(squares))


def test_schnet_of_pytorch_geometric_decorrelates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = trained(tmp_path, monkeypatch, 0.0)
    changed = trained(tmp_path, monkeypatch, 1.0)
    # 0.5 to 0.65 of it for the first five seeds
    assert correlation(changed) < 0.8 * correlation(without)
    # the tap is gone, and never was part of what is saved
    modules = changed["model"].modules()
    assert not any(module._forward_hooks for module in modules)
    assert changed["model"].state_dict().keys() == without["model"].state_dict().keys()


def test_the_other_blocks_of_the_documentation_run() -> None:
    from e3nn.o3 import Irreps, Linear

    _, block = examples()
    module = Linear(Irreps("3x0e+2x1o"), Irreps("3x0e+2x1o"))
    model = torch.nn.ModuleDict({"messages": module})
    names: dict[str, Any] = {"module": module, "name": "messages", "penalty": penalty}
    with Tap(model, "messages") as names["tap"]:
        module(torch.randn(20, 9, generator=torch.Generator().manual_seed(0)))
        exec(block, names)
    scalars, vectors = names["blocks"]
    assert (scalars.channels, vectors.channels, vectors.dim) == (3, 2, 3)
    assert 0 < names["values"].item() < 1
