"""Nested settings by dotted names."""

from nequip_decorr.nested import differences, differing, flat


def test_lists_stay_whole():
    assert flat({"a": {"b": 1, "c": {}}, "d": [{"e": 2}]}) == {
        "a.b": 1,
        "d": [{"e": 2}],
    }


def test_differences_name_what_changed():
    before = {"engine": "ase", "protocol": {"seed": 0, "criteria": {"x": [1, 2]}}}
    now = {"engine": "ase", "protocol": {"seed": 1, "criteria": {"x": [1, 3]}}}
    assert differences(before, now) == [
        "protocol.criteria.x was [1, 2], is [1, 3]",
        "protocol.seed was 0, is 1",
    ]
    assert differences(before, before) == []
    long = {"protocol": {"seed": "x" * 200}}
    assert differences(before, long)[-1] == "protocol.seed differs"


def test_what_is_missing_differs():
    assert list(differing({"a": 1}, {"b": {"c": 2}}, "nothing")) == [
        ("a", 1, "nothing"),
        ("b.c", "nothing", 2),
    ]
