"""Arrays in files: read if they are sound, written in one move."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nequip_decorr.md.files import write_atomic


def read_arrays(path: Path) -> dict[str, Any] | None:
    """Arrays of an npz file; None when there is none, or it cannot be read."""
    try:
        content = io.BytesIO(path.read_bytes())
        with np.load(content, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (FileNotFoundError, zipfile.BadZipFile, ValueError, EOFError, KeyError):
        return None


def write_arrays(path: Path, arrays: Mapping[str, Any], *, final: bool = False) -> None:
    """Write arrays to an npz file, in one move.

    Args:
        path: the file.
        arrays: by name.
        final: to be kept: compressed, and on the disk when this returns.
    """
    buffer = io.BytesIO()
    write = np.savez_compressed if final else np.savez
    write(buffer, allow_pickle=False, **arrays)
    write_atomic(path, buffer.getvalue(), durable=final)
