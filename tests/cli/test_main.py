"""What every command does with the errors of files, and with bugs."""

import os
import resource
import signal
import subprocess
import sys

import pytest

from nequip_decorr.cli import inspect as command
from nequip_decorr.cli.main import main

#: of a file that a process may write: less than a run folder needs
FEW_BYTES = 200

RUN_WITH_SPRINGS = """
import sys
from functools import partial
from nequip_decorr.cli import md
from nequip_decorr.cli.main import main
from nequip_decorr.md import Protocol, run_stability
from tests.support.potentials import Einstein, K, crystal

def run(model, structures, protocol, *, output, **_):
    short = Protocol(timestep_fs=2.0, horizon_ps=0.06, replicas=1)
    return run_stability(
        Einstein(crystal().positions, K), crystal(), short, output=output
    )

md.run_stability = run
sys.exit(main(["md", "m.ckpt", "s.xyz", "--out", sys.argv[1]]))
"""


def limit_files():
    # as a full disk does it: in the middle of a write, with an OSError
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FEW_BYTES, FEW_BYTES))


@pytest.mark.slow
def test_a_full_disk_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-B", "-c", RUN_WITH_SPRINGS, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit_files,
        # what measures coverage would fail to write as well
        env={k: v for k, v in os.environ.items() if not k.startswith("COV")},
    )
    assert done.returncode == 2, done.stderr
    file = tmp_path / "run" / "run.json"
    assert done.stderr == f"nequip-decorr md: File too large: {file}\n"


@pytest.mark.parametrize(
    "arguments",
    [["inspect", "m.ckpt", "s.xyz", "--json", "NAME"], ["compare", "NAME", "b.json"]],
    ids=lambda arguments: arguments[0],
)
def test_a_path_that_no_file_can_have_is_one_line(capsys, arguments):
    name = "n" * 300
    arguments = [argument.replace("NAME", name) for argument in arguments]
    assert main(arguments) == 2
    said = f"nequip-decorr {arguments[0]}: File name too long: {name}\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "bug", [OSError("a library's own"), ValueError("of torch"), RuntimeError("ours")]
)
def test_a_bug_keeps_its_traceback(monkeypatch, bug):
    def fail(*_, **__):
        raise bug

    monkeypatch.setattr(command, "inspect_file", fail)
    with pytest.raises(type(bug), match=str(bug)):
        main(["inspect", "m.ckpt", "s.xyz"])
