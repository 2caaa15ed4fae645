"""Checkpoints of a training: the last, from which it resumes, and the best.

Lightning keeps absolute paths in them, and ignores what a checkpoint knows of the best
and the last one if it was written in another folder. The folder of a study may have
been moved since, so paths are read as those of where the checkpoint is now.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nequip_decorr.errors import UserError


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint from which a training resumes, also in a subfolder."""
    found = [path for path in folder.rglob("last.ckpt") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def resumable_checkpoint(folder: Path) -> Path | None:
    """:func:`last_checkpoint`, rewritten if the folder has been moved since."""
    import torch

    last = last_checkpoint(folder)
    if last is None:
        return None
    content = torch.load(last, map_location="cpu", weights_only=False)
    if _relocate(content, last, folder):
        partial = last.with_name("last.ckpt.partial")
        torch.save(content, partial)
        shutil.copystat(last, partial)  # which of all is the newest must not change
        partial.replace(last)
    return last


def best_checkpoint(folder: Path) -> Path:
    """Lightning's best checkpoint, by the monitored quantity if there is one.

    Raises:
        UserError: if there is no checkpoint.
    """
    import torch

    written = sorted(folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not written:
        raise UserError(
            f"expected a checkpoint in {folder}, got none; check that the "
            "ModelCheckpoint in the config writes one during training"
        )
    last = next((path for path in written if path.name == "last.ckpt"), written[-1])
    # the newest knows best: a ModelCheckpoint that is listed after that of last.ckpt
    # has written since
    content = torch.load(written[-1], map_location="cpu", weights_only=False)
    _relocate(content, written[-1], folder)
    states = [state for state in _states(content) if state.get("best_model_path")]
    states.sort(key=lambda state: state.get("monitor") is None)
    for state in states:
        path = Path(state["best_model_path"])  # Lightning resolves links
        if path.is_file() and path.is_relative_to(folder.resolve()):
            return folder / path.relative_to(folder.resolve())
    return last


def _states(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """States of the callbacks that write checkpoints."""
    return [
        state
        for name, state in content["callbacks"].items()
        if "ModelCheckpoint" in name
    ]


def _relocate(content: Mapping[str, Any], path: Path, folder: Path) -> bool:
    """Let a checkpoint name files in ``folder``; whether it was written elsewhere."""
    states, here = _states(content), folder.resolve()
    former = _former_folder(states, path.relative_to(folder))
    if former is None or former == here:
        return False
    for state in states:
        state.update(_moved(state, former, here))
    return True


def _former_folder(states: list[dict[str, Any]], path: Path) -> Path | None:
    """Folder of the training when it wrote this checkpoint, which names itself."""
    named = [Path(text).parts for state in states for text in _texts(state)]
    found = [
        p[: -len(path.parts)] for p in named if p[-len(path.parts) :] == path.parts
    ]
    # a file of the same name may also be in a subfolder
    return Path(*min(found, key=len)) if found else None


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(node, str):
        yield node


def _moved(node: Any, former: Path, here: Path) -> Any:
    """The same with paths below ``here`` in place of those below ``former``."""
    if isinstance(node, Mapping):
        return {
            _moved(key, former, here): _moved(value, former, here)
            for key, value in node.items()
        }
    if isinstance(node, str) and Path(node).is_relative_to(former):
        return str(here / Path(node).relative_to(former))
    return node
