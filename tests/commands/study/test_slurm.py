"""Studies on a SLURM of one node that is brought up for the tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time

import pytest

from nequip_decorr.errors import UserError
from nequip_decorr.study.executor_options import Executor
from nequip_decorr.study.executors import SlurmRunner, UnreachableError
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.run import run_tasks
from tests.support import slurm, studies
from tests.support.shell_tasks import LEFT, registered, task, times_run

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

PATIENCE_S = 900


@pytest.fixture
def folder(cluster, tmp_path, monkeypatch):
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", studies.environment()["PYTHONPATH"])
    return StudyFolder(tmp_path / "study")


class Study:
    """A study whose loop is watched while it runs."""

    def __init__(self, folder, *tasks, **options):
        self.folder = folder
        self.registered = registered(folder, *tasks)
        timeouts = options.pop("max_num_timeout", 3)
        slurm_options = {"time": 10, "cpus_per_task": 1, **options}
        self.runner = SlurmRunner(
            folder, Executor("slurm", max_num_timeout=timeouts, slurm=slurm_options)
        )
        self.runner.poll_s = 1.0
        self.deadline = time.monotonic() + PATIENCE_S

    def run(self, look=lambda: None):
        """To the end; ``look`` is called at each turn of the loop."""

        def say(*_):
            assert time.monotonic() < self.deadline
            look()

        return run_tasks(self.folder, self.registered, self.runner, say)


def test_whole_study(cluster, undisturbed, tmp_path, monkeypatch):
    """A variant has the records that it has on this machine without SLURM."""
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    options = {"partition": "tests", "time_min": 60, "cpus_per_task": 1}
    fast = {"fast": list(studies.FAST)}
    studies.study_file(tmp_path, variants=fast, executor={"slurm": options})
    done = studies.run(tmp_path, "study.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    found = studies.results(tmp_path / "study-results")
    calm = studies.results(undisturbed[0] / "study-results")
    assert found == {key: calm[key] for key in calm if key.startswith("fast_")}
    assert len(found) == 4


def test_arrays(folder):
    """Tasks of one stage are one job array."""
    study = Study(folder, *(task(folder, LEFT, name) for name in "abc"))
    records = study.run()
    assert {r["status"] for r in records.values()} == {"done"}
    jobs = json.loads((folder.path / "jobs/slurm.json").read_text())
    numbers = {job.partition("_")[0] for job in jobs.values()}
    assert len(numbers) == 1
    assert sorted(job.partition("_")[2] for job in jobs.values()) == ["0", "1", "2"]


def test_limits_of_a_cluster(folder, tmp_path, monkeypatch):
    """Of the size of an array (four), and of a user's jobs (here five): tasks wait."""
    real = shutil.which("sbatch")
    limited = tmp_path / "bin" / "sbatch"
    limited.parent.mkdir()
    limited.write_text(
        "#!/bin/sh\n"
        'new=$(sed -n "s/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p" "$1")\n'
        "queued=$(squeue --noheader --array --me | wc -l)\n"
        "if [ $((queued + ${new:-0} + 1)) -gt 5 ]; then\n"
        '  echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1\n'
        f'fi\nexec {real} "$@"\n'
    )
    limited.chmod(0o755)
    monkeypatch.setenv("PATH", f"{limited.parent}:{os.environ['PATH']}")
    names = [f"t{i}" for i in range(9)]
    study = Study(folder, *(task(folder, LEFT, name) for name in names))
    records = study.run()
    assert {r["status"] for r in records.values()} == {"done"}
    assert [times_run(folder, name) for name in names] == [1] * 9
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    limited.write_text('#!/bin/sh\necho "Invalid partition" >&2; exit 1\n')
    refused = Study(StudyFolder(tmp_path / "refused"), task(folder, LEFT, "a"))
    with pytest.raises(UserError, match="Invalid partition") as error:
        refused.run()
    assert "\n" not in str(error.value)


def test_a_cancelled_job(folder, cluster):
    """It failed, and the others go on; --retry would run it again."""
    study = Study(folder, task(folder, "sleep 1000", "a"), task(folder, LEFT, "b"))
    cancelled = []

    def cancel():
        if not cancelled and times_run(folder, "a"):
            cancelled.append(study.runner.jobs["a_1.inspect"])
            subprocess.run(["scancel", cancelled[0]], check=True)

    records = study.run(cancel)
    assert records["b_1.inspect"]["status"] == "done"
    assert records["a_1.inspect"]["status"] == "failed"
    assert "CANCELLED" in records["a_1.inspect"]["error"]


def test_a_job_out_of_time_is_requeued(folder):
    """SLURM's signal ends the command, and the job begins again; its second time is
    enough. SLURM looks at the time every 30 s, so the signal comes 40 to 70 s after the
    start.
    """
    once = f"[ -e {folder.path}/once ] || {{ touch {folder.path}/once; sleep 1000; }}"
    study = Study(
        folder, task(folder, f"{once}; {LEFT}", "a"), time=2, signal_delay_s=50
    )
    (record,) = study.run().values()
    assert record["status"] == "done"
    assert record["interrupted"] == 1
    assert times_run(folder, "a") == 2


def test_a_drained_node(folder, cluster):
    """Tasks wait in the queue until it is resumed."""
    host = os.uname().nodename.split(".")[0]
    node = ("update", f"NodeName={host}")
    study = Study(folder, task(folder, LEFT, "a"))
    slurm.scontrol(cluster, *node, "State=DRAIN", "Reason=test")
    turns = []

    def resume():
        turns.append(times_run(folder, "a"))
        if len(turns) == 5:
            assert turns == [0] * 5
            slurm.scontrol(cluster, *node, "State=RESUME")

    (record,) = study.run(resume).values()
    assert record["status"] == "done"


def test_a_study_that_was_killed_finds_its_jobs(folder):
    """The next one submits none of them again."""
    study = Study(folder, task(folder, f"sleep 5; {LEFT}", "a"))
    stop = RuntimeError("killed")

    def die():
        if study.runner.jobs:
            raise stop

    with pytest.raises(RuntimeError, match="killed"):
        study.run(die)
    job = dict(study.runner.jobs)
    again = Study(folder, *study.registered.tasks)
    (record,) = again.run().values()
    assert record["status"] == "done"
    assert again.runner.jobs == job
    assert times_run(folder, "a") == 1


def test_a_scheduler_that_does_not_answer(folder, tmp_path, monkeypatch):
    """It is asked again; nothing is taken for lost."""
    answered = tmp_path / "answered"
    script = f"while [ ! -e {answered} ]; do sleep 0.1; done; {LEFT}"
    study = Study(folder, task(folder, script, "a"))
    broken = tmp_path / "bin" / "squeue"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    working = os.environ["PATH"]
    said = []

    def silence():
        said.append(folder.record("a_1.inspect"))
        path = f"{broken.parent}:{working}" if 1 < len(said) < 9 else working
        monkeypatch.setenv("PATH", path)
        if len(said) > 9:
            answered.touch()

    (record,) = study.run(silence).values()
    assert record["status"] == "done"
    assert len(said) > 8
    monkeypatch.setenv("PATH", f"{broken.parent}:{working}")
    with pytest.raises(UnreachableError, match="squeue"):
        study.runner.active()
