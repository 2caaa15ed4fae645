"""The answers of a study on the terminal."""

from __future__ import annotations

from functools import partial

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nequip_decorr.printing import say
from nequip_decorr.study.answers import Answer
from nequip_decorr.study.report.result import Findings
from nequip_decorr.study.report.rows import answered, judged, notes, row, unanswered


def print_answers(console: Console, found: Findings) -> None:
    """Print all answers, with both kinds of event, and what limits them."""
    show = partial(say, console, wrap=True)
    shown = answered(found.answers)
    if shown:
        console.print(_table(shown))
        show(
            f"ratios to the baseline, {found.variants[0]}; in parentheses, replicas "
            "with the event in the variant and in the baseline"
        )
    for why, questions in unanswered(found.answers).items():
        show(f"{'; '.join(questions)}: {why}")
    for answer in found.answers:
        if answer.question.primary:
            cells = row(answer)
            show(f"\nprimary question: {cells['sentence']}", style="bold")
            if cells["power"]:
                show(f"  {cells['power']}")
    for note in notes(found):
        show(f"note: {note}")


def _table(shown: list[Answer]) -> Table:
    verdicts = judged(shown)
    columns = ["ratio", "p"] if verdicts else ["ratio"]
    heads = {"ratio": "ratio [95 %]" if verdicts else "ratio"}
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("question")
    for name in columns:
        table.add_column(heads.get(name, name), justify="right", no_wrap=True)
    if verdicts:
        table.add_column("verdict", max_width=20)
    for variant in dict.fromkeys(answer.question.variant for answer in shown):
        table.add_section()
        table.add_row(Text(variant, style="bold"))
        for answer in shown:
            if answer.question.variant != variant:
                continue
            cells = row(answer)
            question = cells["question"].removeprefix(f"{variant}: ")
            verdict = [Text(cells["verdict"])] if verdicts else []
            numbers = (cells[name] for name in columns)
            if cells["events"]:
                question += f" ({cells['events']})"
            table.add_row(Padding(question, (0, 0, 0, 2)), *numbers, *verdict)
    return table
