"""Paths as a user gives them: frames picked from a file, files to be written."""

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


def user_path(text: str) -> Path:
    """A path of the command line or a protocol; shells leave ``--out=~/run`` as it is.

    Raises:
        UserError: for the home of nobody.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"expected a home folder for {text}, got none") from error


def check_output_file(path: str | Path) -> Path:
    """Find out before the work whether a file can be written.

    Raises:
        UserError: when the path is a folder.
        UserError: when its folder does not exist.
        UserError: when it, or its folder, cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"expected a file to write, got the folder {path}")
    if not path.parent.is_dir():
        raise UserError(
            f"expected a folder to write {path.name} to, got {path.parent}: no such "
            f"folder"
        )
    target = path if path.exists() else path.parent
    if not os.access(target, os.W_OK):
        raise UserError(
            f"expected to be allowed to write {path}, got no permission for {target}; "
            "give another path"
        )
    return path
