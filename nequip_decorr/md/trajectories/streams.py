"""Text files, compressed or not, line by line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO

from nequip_decorr.errors import UserError


class CutOffError(Exception):
    """A file ends, or another frame begins, in the middle of a frame."""


class Lines:
    """Lines of a text file, which can be put back.

    Args:
        handle: the open file.
        path: its path, for messages.
    """

    def __init__(self, handle: TextIO, path: Path) -> None:
        self.path = path
        self._handle = handle
        self._back: list[str] = []

    def next(self) -> str:
        """The next line; an empty string at the end of the file."""
        if self._back:
            return self._back.pop()
        return self._handle.readline()

    def take(self, n: int) -> list[str]:
        """The next ``n`` lines, fewer at the end of the file."""
        put_back = [self._back.pop() for _ in range(min(n, len(self._back)))]
        return [*put_back, *islice(self._handle, n - len(put_back))]

    def put_back(self, lines: list[str]) -> None:
        """Put lines back, to be read next."""
        self._back.extend(reversed(lines))


@contextmanager
def open_lines(path: Path) -> Iterator[Lines]:
    """Open a text file; ``.gz`` is decompressed on the way.

    Raises:
        UserError: if it cannot be read or is not text.
    """
    try:
        with open_text(path) as handle:
            yield Lines(handle, path)
    except EOFError as error:  # a gzip stream without its end
        raise CutOffError from error
    except (OSError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(
            f"expected a text file that can be read, got {path} ({error}); check the "
            "path"
        ) from error


def open_text(path: Path) -> TextIO:
    """Open a text file for reading; ``.gz`` is decompressed on the way."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")
