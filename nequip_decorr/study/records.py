"""Records of ended tasks: a file each, and one for all once none is left to run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nequip_decorr.md.files import write_atomic

Record = dict[str, Any]


class RecordStore:
    """Reads and writes the records in the folder of a study.

    Tasks write ``records/KEY.json``. :meth:`gather` moves them to ``records.jsonl``,
    one line each, which is easy to copy and to keep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: tuple[tuple[int, int], dict[str, Record]] | None = None

    def file(self, key: str) -> Path:
        """Where a task writes its record."""
        return self.folder / "records" / f"{key}.json"

    def get(self, key: str) -> Record | None:
        """The record of a task; None if it has not ended."""
        try:
            text = self.file(key).read_text(encoding="utf-8")
        except FileNotFoundError:  # gathered before its file was removed
            return self.gathered().get(key)
        record: Record = json.loads(text)
        return record

    def gathered(self) -> dict[str, Record]:
        """Records in ``records.jsonl``, by task key; kept until the file changes."""
        path = self.folder / "records.jsonl"
        try:
            status = path.stat()
        except FileNotFoundError:
            return {}
        now = (status.st_mtime_ns, status.st_ino)
        if self._read is None or self._read[0] != now:
            lines = path.read_text(encoding="utf-8").splitlines()
            records = [json.loads(line) for line in lines]
            self._read = now, {record["key"]: record for record in records}
        return self._read[1]

    def write(self, key: str, record: Mapping[str, Any]) -> None:
        """Write the record of a task."""
        write_atomic(self.file(key), json.dumps(record, indent=1, allow_nan=False))

    def forget(self, key: str) -> None:
        """Remove a record, so that the task runs again."""
        before = self.gathered()
        if key in before:
            self._write_gathered(each for k, each in before.items() if k != key)
        self.file(key).unlink(missing_ok=True)

    def gather(self, keys: Iterable[str]) -> None:
        """Move the records of these tasks into one file, in this order."""
        found = {key: self.get(key) for key in keys}
        records = {key: each for key, each in found.items() if each is not None}
        self._write_gathered(records.values())
        for key in records:
            self.file(key).unlink(missing_ok=True)

    def _write_gathered(self, records: Iterable[Mapping[str, Any]]) -> None:
        lines = [
            json.dumps(each, allow_nan=False, separators=(",", ":")) + "\n"
            for each in records
        ]
        write_atomic(self.folder / "records.jsonl", "".join(lines))
