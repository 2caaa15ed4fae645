"""Tasks of a study that run scripts of the shell in place of NequIP's commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nequip_decorr.study.folder import Registered, StudyFolder
from nequip_decorr.study.plan import Plan
from nequip_decorr.study.tasks import Task

#: As ``nequip-decorr inspect --json`` leaves it.
LEFT = 'echo \'{"layers": [], "field": "f"}\' > inspect.json'


def task(
    folder: StudyFolder,
    script: str,
    name: str = "a",
    *,
    needs: Sequence[str] = (),
    seed: int = 1,
) -> Task:
    """A task that runs a script in its folder, and counts how often."""
    out = folder.path / "models" / f"{name}_{seed}"
    command = ("sh", "-c", f"cd {out}; echo x >> {folder.path}/{name}.count; {script}")
    return Task("inspect", name, seed, command, str(out), needs=tuple(needs))


def registered(
    folder: StudyFolder, *tasks: Task, files: Mapping[str, str] | None = None
) -> Registered:
    """The tasks as the plan of a study."""
    plan = Plan({"md": {}}, (1,), tasks, dict(files or {}))
    with folder.held():
        return folder.register(plan, {}, ())


def quiet(*_: object) -> None:
    """Say nothing while a study runs."""


def times_run(folder: StudyFolder, name: str) -> int:
    """How often the task of a name was run."""
    path = folder.path / f"{name}.count"
    return len(path.read_text().split()) if path.exists() else 0
