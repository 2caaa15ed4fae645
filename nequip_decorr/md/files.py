"""Atomic writing of files, their hashes, and reading of YAML."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from nequip_decorr.errors import UserError
from nequip_decorr.wording import one_line


def write_atomic(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write a temporary file beside ``path`` and move it into place.

    Args:
        path: the file.
        content: text (UTF-8) or bytes.
        durable: wait until the file is on disk, so that it survives a power cut (it
            survives a killed process in any case).

    Raises:
        OSError: if the disk is full or the folder is not writable; ``path`` is then
            unchanged.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(path.name + ".part")
    with naming(path):
        try:
            with temporary.open("wb") as handle:
                handle.write(data)
                if durable:
                    handle.flush()
                    os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def append(path: Path, data: bytes) -> int:
    """Append to a file; its new size.

    Raises:
        OSError: when the disk is full or the folder is not writable; a part of the
            data may then be there.
    """
    with naming(path), path.open("ab") as handle:
        handle.write(data)
        handle.flush()
        return handle.tell()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let errors in writing a file name it; those of an open file name none."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _OneOfEach(yaml.SafeLoader):
    """Refuses a key that a mapping has twice: the first would be lost."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # before `<<` is filled in, whose keys may be given again
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":  # loses nothing
                continue
            if (key.tag, str(key.value)) in seen:
                raise yaml.composer.ComposerError(
                    None, None, f"{key.value} is there twice", key.start_mark
                )
            seen.add((key.tag, str(key.value)))
        return node


def read_yaml(path: Path, what: str) -> Any:
    """Content of a YAML file in plain types.

    Args:
        path: the file.
        what: the kind of content, for the message.

    Raises:
        UserError: if the file cannot be read, is not YAML, or has a key twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _OneOfEach)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"expected {what} in YAML, got {path}: {one_line(error)}"
        ) from error
