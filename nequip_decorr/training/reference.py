"""The reference of all options as Markdown, made from their declarations.

``python -m nequip_decorr.training.reference > docs/options.md``
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from inspect import getdoc
from typing import Any

from nequip_decorr.training.options import SCHEDULES, Options, Penalty, Sample

_HEAD = """\
# Options

Options of `EdgeDecorrelation`, which are also those of the flag:
`nequip-train -cn config +nequip_decorr=cosine nequip_decorr.schedule.coeff=1.0`.
The presets `default`, `constant`, `cosine`, `target` and `monitor` list every option of
their kind of schedule, so that each can be overridden by its dotted name. An unknown
option, or one of another kind of schedule, is an error before the training starts.

The defaults below are those of the class; a preset may set others. In particular,
`default` and `constant` have `sample.every: 4`, and `default` has
`schedule.relative: true`. Without a preset and without a `schedule`, the options are
those of `default`.

<!-- made by `python -m nequip_decorr.training.reference`; do not edit -->
"""


def render() -> str:
    """The whole page."""
    kinds = [(f"`{kind}`", _first_line(cls)) for kind, cls in SCHEDULES.items()]
    parts = [
        _HEAD,
        _table(("option", "default", "meaning"), _rows(Options)),
        f"## `schedule`\n\nHow the coefficient changes. The energy and force "
        f"coefficients, which NequIP normalises to sum to 1, stay what they are "
        f"without the term. Without a `schedule`, it is that of the preset `default`, "
        f"as is `sample.every`; in one without a `kind`, `kind` is "
        f"`{Options().schedule.kind}`.\n",
        _table(("kind", "meaning"), kinds),
        _table(("option", "kinds", "default", "meaning"), _schedule_rows()),
        f"## `sample`\n\n{_first_line(Sample)}\n",
        _table(("option", "default", "meaning"), _rows(Sample)),
        f"## `penalty`\n\n{_first_line(Penalty)}\n",
        _table(("option", "default", "meaning"), _rows(Penalty)),
    ]
    return "\n".join(parts)


def _rows(group: type) -> list[tuple[str, str, str]]:
    declared: tuple[Any, ...] = fields(group)
    return [
        (f"`{each.name}`", _shown(each.default), _sentence(each.metadata["meaning"]))
        for each in declared
    ]


def _schedule_rows() -> list[tuple[str, str, str, str]]:
    """One row for each option, or several where kinds differ in it."""
    users: dict[tuple[str, str, str], list[str]] = {}
    for kind, cls in SCHEDULES.items():
        for row in _rows(cls):
            users.setdefault(row, []).append(kind)
    order = list(dict.fromkeys(name for name, _, _ in users))
    every = list(SCHEDULES)
    return [
        (name, "all" if kinds == every else ", ".join(kinds), default, meaning)
        for (name, default, meaning), kinds in sorted(
            users.items(), key=lambda item: order.index(item[0][0])
        )
    ]


def _shown(default: Any) -> str:
    """A default as YAML has it."""
    if default is MISSING:
        return "required"
    if is_dataclass(default):
        return "below"
    if default is None or isinstance(default, bool):
        return {None: "`null`", True: "`true`", False: "`false`"}[default]
    return f"`{default}`"


def _sentence(text: str) -> str:
    start = text if text.startswith("`") else text[0].upper() + text[1:]
    return f"{start}."


def _first_line(cls: type) -> str:
    return (getdoc(cls) or "").splitlines()[0].replace("``", "`")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(render())
