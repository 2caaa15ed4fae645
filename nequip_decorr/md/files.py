"""Files that are either as they were before or as they are to be."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomic(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write a file beside ``path`` and move it into place.

    Args:
        path: the file.
        content: text (UTF-8) or bytes.
        durable: wait until it is on the disk, so that a power cut loses nothing; a
            killed process never does.

    Raises:
        OSError: when the disk is full or the folder is not writable; ``path`` is then
            as it was.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as handle:
            handle.write(data)
            if durable:
                handle.flush()
                os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
