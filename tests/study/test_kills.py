"""A study that is killed again and again, with commands of the shell for NequIP's."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.plan import Plan
from nequip_decorr.study.tasks import Task
from tests.support import studies

#: What ``nequip-decorr study`` does once a study is planned.
LOOP = """
import sys
from nequip_decorr.study.executor_options import Executor
from nequip_decorr.study.executors import LocalRunner
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.run import run_tasks

folder = StudyFolder(sys.argv[1])
with folder.held():
    runner = LocalRunner(folder, Executor(processes=2, gpus=0))
    run_tasks(folder, folder.registered(), runner, lambda *_: None)
"""


def planned(path):
    """A study of commands that leave half of their output for a moment."""
    folder = StudyFolder(path)
    tasks = []
    for seed in range(6):
        for stage, name, text in (
            ("test", "metrics.csv", f"test0_epoch/e_rmse\\n{seed}.5\\n"),
            ("inspect", "inspect.json", f'{{"field": "f", "layers": [{seed}]}}'),
        ):
            out = path / "models" / f"a_{seed}" / stage
            half = len(text) // 2
            script = (
                f"cd {out}; printf '%b' '{text[:half]}' > {name}; sleep 0.4; "
                f"printf '%b' '{text[half:]}' >> {name}"
            )
            needs = (f"a_{seed}.test",) if stage == "inspect" else ()
            command = ("sh", "-c", script)
            tasks.append(Task(stage, "a", seed, command, str(out), needs))
    with folder.held():
        folder.register(Plan({"md": {}}, (0,), tuple(tasks), {}), {}, ())
    return folder


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-c", LOOP, str(folder.path)],
        env=studies.environment(),
        text=True,
    )


@pytest.mark.slow
def test_the_records_of_a_study_killed_twenty_times(tmp_path):
    """The same as those of an undisturbed one."""
    calm, disturbed = planned(tmp_path / "calm"), planned(tmp_path / "disturbed")
    assert start(calm).wait() == 0

    def repeat():
        for task in disturbed.registered().tasks:
            disturbed.store.forget(task.key)

    studies.kill_again_and_again(
        lambda: start(disturbed), repeat, kills=20, longest_s=1.6, seed=20
    )
    keys = [task.key for task in disturbed.registered().tasks]
    hit = [
        each for key in keys for each in disturbed.attempts(key) if not each["ended"]
    ]
    assert hit  # or there was nothing to recover
    assert start(disturbed).wait() == 0
    found = studies.results(disturbed.path)
    assert len(found) == 12
    assert found == studies.results(calm.path)
