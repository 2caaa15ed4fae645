"""Records: one file a task, and one for all at the end."""

from __future__ import annotations

import json

import pytest

from nequip_decorr.study.records import RecordStore


@pytest.fixture
def store(tmp_path):
    (tmp_path / "records").mkdir()
    found = RecordStore(tmp_path)
    for number, key in enumerate("abc"):
        found.write(key, {"key": key, "number": number})
    return found


def numbers(store):
    return {key: (store.get(key) or {}).get("number") for key in "abcd"}


def test_gathered_records_are_the_same(store):
    before = numbers(store)
    store.gather("cadb")
    assert numbers(store) == before == {"a": 0, "b": 1, "c": 2, "d": None}
    assert list(store.gathered()) == ["c", "a", "b"]
    assert not list((store.folder / "records").iterdir())
    lines = (store.folder / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["c", "a", "b"]


def test_gathering_is_repeated_as_tasks_end(store):
    store.gather("abc")
    store.write("d", {"key": "d", "number": 3})
    store.gather("abcd")
    assert numbers(store) == {"a": 0, "b": 1, "c": 2, "d": 3}


@pytest.mark.parametrize("gathered", [False, True])
def test_forgotten(store, gathered):
    if gathered:
        store.gather("abc")
    store.forget("b")
    assert numbers(store) == {"a": 0, "b": None, "c": 2, "d": None}
    store.write("b", {"key": "b", "number": 7})
    assert numbers(store)["b"] == 7


def test_killed_between_the_file_of_all_and_the_removal(store):
    files = {p: p.read_text() for p in (store.folder / "records").iterdir()}
    store.gather("abc")
    for path, text in files.items():
        path.write_text(text)
    store.gather("abc")
    assert numbers(store) == {"a": 0, "b": 1, "c": 2, "d": None}


def test_what_another_process_gathered_is_seen(store):
    other = RecordStore(store.folder)
    other.gather("ab")
    assert store.gathered().keys() == {"a", "b"}
    other.gather("abc")
    assert store.gathered().keys() == {"a", "b", "c"}
