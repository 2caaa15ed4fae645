"""User-supplied paths: files to read, frames selected from them, files to write."""

from __future__ import annotations

import os
from pathlib import Path

from nequip_decorr.errors import UserError


def split_index(path: str | Path) -> tuple[Path, str | None]:
    """``file@0:10`` as file and index, as ase reads it.

    Only the last part of a path carries an index, and only where the file has no ``@``
    in its own name: ``T@1200K/start.xyz`` and a file ``a@b.xyz`` are plain paths.
    """
    path = Path(path)
    if "@" not in path.name or path.is_file():
        return path, None
    name, _, index = str(path).rpartition("@")
    return (Path(name), index) if Path(name).is_file() else (path, None)


def check_file(path: str | Path, what: str) -> Path:
    """Check that there is a file to read.

    Args:
        path: the path, without an index of frames.
        what: what the file should be, for the message: ``a model file``.

    Raises:
        UserError: if there is a folder at the path, or nothing.
    """
    path = Path(path)
    if not path.is_file():
        found = "which is a folder" if path.is_dir() else "which does not exist"
        raise UserError(f"expected {what}, got {path}, {found}; give the file's path")
    return path


def user_path(text: str) -> Path:
    """A path of the command line or a protocol; shells leave ``--out=~/run`` as it is.

    Raises:
        UserError: for the home folder of an unknown user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"expected a home folder for {text}, got none") from error


def check_output_file(path: str | Path) -> Path:
    """Check before any work that a file can be written.

    Raises:
        UserError: if the path is a folder, its folder does not exist, or it cannot be
            written.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(
            f"expected a file to write, got the folder {path}; give the path of a file"
        )
    if not path.parent.is_dir():
        raise UserError(
            f"expected a folder to write {path.name} to, got {path.parent}: no such "
            f"folder; create it or give another path"
        )
    target = path if path.exists() else path.parent
    if not os.access(target, os.W_OK):
        raise UserError(
            f"cannot write {path}: no write permission for {target}; give another path"
        )
    return path


def write_output(path: str | Path, content: str | bytes) -> None:
    """Write a file that a user asked for; text as UTF-8.

    The file is written in place, so that links, ``/dev/stdout`` and the file's
    permissions are kept.

    Raises:
        UserError: if it cannot be written.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; give another path"
        ) from error
