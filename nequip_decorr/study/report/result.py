"""``result.json`` and the CSV files of a study."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nequip_decorr.md.files import write_atomic
from nequip_decorr.md.results import KINDS
from nequip_decorr.study.answers import Answer, answers
from nequip_decorr.study.folder import Registered, StudyFolder
from nequip_decorr.study.machine import versions
from nequip_decorr.study.models import Model, models
from nequip_decorr.study.questions import read_questions
from nequip_decorr.study.run import Records, outlook

SCHEMA = "nequip_decorr.study-result/1"


@dataclass(frozen=True)
class Findings:
    """The content of a report.

    Attributes:
        folder: folder of the study.
        registered: the plan.
        records: records of the finished tasks.
        models: the models with their results so far.
        answers: all answers, the primary one first.
    """

    folder: Path
    registered: Registered
    records: Records
    models: list[Model]
    answers: list[Answer]

    @property
    def variants(self) -> list[str]:
        """Names, the baseline first."""
        return list(self.registered.identity["variants"])

    @property
    def conditions(self) -> list[str]:
        """MD conditions, in the order of ``study.yaml``."""
        found = dict.fromkeys(c for model in self.models for c in model.replicas)
        return list(found)

    @property
    def complete(self) -> bool:
        """Whether no runnable task is left."""
        return outlook(self.registered.tasks, self.records).over


def findings(folder: StudyFolder) -> Findings:
    """Read the folder of a study, finished or not."""
    registered = folder.registered()
    records = folder.records(registered)
    found = models(registered, records)
    asked = read_questions(registered.questions)
    variants = list(registered.identity["variants"])
    given = answers(asked, found, registered.identity["baseline"], variants)
    return Findings(folder.path, registered, records, found, given)


def write_data(found: Findings, folder: Path) -> list[Path]:
    """Write ``result.json`` and the CSV files; returns their paths."""
    texts = {
        "result.json": json.dumps(result(found), indent=1, allow_nan=False),
        "models.csv": _csv(list(_model_rows(found.models))),
        "replicas.csv": _csv(list(_replica_rows(found.models))),
        "answers.csv": _csv(list(_answer_rows(found.answers))),
    }
    for name, text in texts.items():
        write_atomic(folder / name, text)
    return [folder / name for name in texts]


def result(found: Findings) -> dict[str, Any]:
    """The content of ``result.json`` in plain types; ``schema.json`` has its layout."""
    registered = found.registered
    failed = [r for r in found.records.values() if r["status"] != "done"]
    blocked = outlook(registered.tasks, found.records).blocked
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "complete": found.complete,
        "plan": registered.checksum,
        "baseline": registered.identity["baseline"],
        "variants": {
            name: each["overrides"]
            for name, each in registered.identity["variants"].items()
        },
        "seeds": [dict(wave) for wave in registered.waves],
        "answers": [_answer(answer) for answer in found.answers],
        "models": [asdict(model) for model in found.models],
        "failed": [
            {name: record[name] for name in ("key", "error", "tail")}
            for record in failed
        ],
        "blocked": [task.key for task in blocked],
        "versions": versions(),
        "machines": machines(found.records),
    }
    plain: dict[str, Any] = json.loads(json.dumps(data))
    return plain


def machines(records: Records) -> list[dict[str, Any]]:
    """Machines on which tasks ran, each once."""
    found = {
        json.dumps({k: v for k, v in record["machine"].items() if k != "gpus"})
        for record in records.values()
        if record["machine"]
    }
    return [json.loads(text) for text in sorted(found)]


def _answer(answer: Answer) -> dict[str, Any]:
    return {**asdict(answer), "sentence": answer.sentence}


def _model_rows(found: Sequence[Model]) -> Iterator[dict[str, Any]]:
    for model in found:
        row: dict[str, Any] = {
            "variant": model.variant,
            "seed": model.seed,
            "train_cpu_s": model.train_s,
            "train_wall_s": model.train_wall_s,
            "mean_abs_correlation": model.correlation,
        }
        for test, errors in model.errors.items():
            row |= {f"{test}/{metric}": value for metric, value in errors.items()}
        for condition, replicas in model.replicas.items():
            for kind in KINDS:
                happened = sum(replica[kind]["happened"] for replica in replicas)
                row[f"{condition}/{kind}"] = happened
            row[f"{condition}/replicas"] = len(replicas)
        row |= {f"{c}/rdf_error_A": value for c, value in model.rdf.items()}
        for name, slopes in model.drift.items():
            row[f"{name}/drift_meV_per_atom_ps"] = largest(slopes)
        yield row | {"failed": " ".join(model.failed)}


def largest(slopes: Sequence[float | None]) -> float | None:
    """Largest absolute drift; None if a replica failed."""
    if not slopes or any(slope is None for slope in slopes):
        return None
    return max((s for s in slopes if s is not None), key=abs)


def _replica_rows(found: Sequence[Model]) -> Iterator[dict[str, Any]]:
    for model in found:
        for condition, replicas in model.replicas.items():
            for replica in replicas:
                row: dict[str, Any] = {
                    "variant": model.variant,
                    "training_seed": model.seed,
                }
                row |= {"condition": condition, **replica}
                for kind in KINDS:
                    row |= {f"{kind}_{k}": v for k, v in row.pop(kind).items()}
                yield row


def _answer_rows(given: Sequence[Answer]) -> Iterator[dict[str, Any]]:
    for answer in given:
        effect: Mapping[str, Any] = asdict(answer.effect) if answer.effect else {}
        yield {
            **asdict(answer.question),
            **{
                f"ratio_{k}" if k in ("low", "high") else k: v
                for k, v in effect.items()
            },
            "p_corrected": answer.p_value,
            "verdict": answer.verdict,
            "seeds_left_out": " ".join(map(str, answer.left_out)),
            "seeds_needed": answer.seeds_needed,
        }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV text, with columns in the order of first appearance."""
    columns = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
