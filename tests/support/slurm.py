"""A SLURM of one node, for the tests: brought up in a folder, and down again.

Needs the packages of ``apt-get install slurm-wlm munge`` and root. By hand::

    python -m tests.support.slurm FOLDER    # until Ctrl-C; prints what to export
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={munge},cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=2
ReturnToService=2
KillWait=10
MinJobAge=300
MaxArraySize=4
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=2000
PartitionName=tests Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""

#: Until SLURM answers, or a job has changed its state.
PATIENCE_S = 120.0


def available() -> bool:
    """Whether SLURM is installed, and may be started."""
    needed = ("sbatch", "slurmctld", "slurmd", "munged")
    return os.geteuid() == 0 and all(_program(name) for name in needed)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """SLURM, up while the context lasts; yields the variables that find it."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    host = socket.gethostname().split(".")[0]
    socket_path = _munge(folder)
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(
            host=host,
            folder=folder,
            control=_free_port(),
            node=_free_port(),
            munge=socket_path,
            cpus=os.cpu_count(),
        )
    )
    variables = {"SLURM_CONF": str(conf)}
    env = {**os.environ, **variables}
    started = []
    try:
        for name in ("slurmctld", "slurmd"):
            command = [str(_program(name)), "-D", "-f", str(conf)]
            with (folder / f"{name}.out").open("wb") as out:
                started.append(
                    subprocess.Popen(command, env=env, stdout=out, stderr=out)
                )
        _wait_for("idle", lambda: sinfo(variables))
        yield variables
    finally:
        with suppress(subprocess.SubprocessError, FileNotFoundError):
            subprocess.run(["scancel", "--me"], env=env, check=True, timeout=30)
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()
        _end_munge(folder)


def _munge(folder: Path) -> Path:
    """Start munged with a key of its own; the socket that it listens on."""
    # a socket's path must be short, and its folder the daemon's own
    home = Path("/run") / f"munge-{os.getpid()}"
    home.mkdir(mode=0o755)
    (folder / "munge").write_text(str(home))
    (home / "key").write_bytes(os.urandom(64))
    shutil.chown(home, "munge", "munge")
    shutil.chown(home / "key", "munge", "munge")
    (home / "key").chmod(0o400)
    options = [f"--{name}={home}/{name}" for name in ("socket", "pid-file", "log-file")]
    options += [f"--key-file={home}/key", f"--seed-file={home}/seed", "--force"]
    command = ["runuser", "-u", "munge", "--", str(_program("munged")), *options]
    subprocess.run(command, check=True)
    return home / "socket"


def _end_munge(folder: Path) -> None:
    home = Path((folder / "munge").read_text())
    with suppress(OSError, ValueError):
        number = int((home / "pid-file").read_text())
        os.kill(number, signal.SIGTERM)
        while True:  # it writes a file as it ends
            os.kill(number, 0)
            time.sleep(0.1)
    shutil.rmtree(home, ignore_errors=True)


def _say(variables: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout.strip()


def sinfo(variables: dict[str, str]) -> str:
    """State of the node: idle, mixed, drained, ..."""
    return _say(variables, "sinfo", "--noheader", "--format=%T")


def jobs(variables: dict[str, str]) -> dict[str, str]:
    """Number to state of all jobs in the queue."""
    lines = _say(variables, "squeue", "--noheader", "--array", "--format=%i %T")
    return dict(line.split() for line in lines.splitlines())


def scontrol(variables: dict[str, str], *arguments: str) -> str:
    """Run scontrol."""
    return _say(variables, "scontrol", *arguments)


def _wait_for(state: str, look: object) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = look()  # type: ignore[operator]
        if found == state:
            return
        time.sleep(0.5)
    raise TimeoutError(f"expected the node to be {state}, got {found!r}")


def main() -> None:
    """Bring SLURM up until interrupted."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    with cluster(Path(sys.argv[1]).absolute()) as variables:
        for name, value in variables.items():
            print(f"export {name}={value}", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
