"""The folder of a run: kept to one process, on every system."""

import subprocess
import sys

import pytest

from nequip_decorr.errors import UserError
from nequip_decorr.md.running.folder import RunFolder


def test_a_run_imports_without_what_only_unix_has():
    code = (
        "import sys\n"
        "sys.modules.update(fcntl=None, resource=None, termios=None, pwd=None)\n"
        "import nequip_decorr.md.running.run\n"
        "import nequip_decorr.md.running.pool\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_one_process_at_a_time(tmp_path):
    identity = {"schema": 1}
    with RunFolder(tmp_path / "run").held(identity):
        code = (
            "from nequip_decorr.md.running.folder import RunFolder\n"
            f"with RunFolder({str(tmp_path / 'run')!r}).held({identity!r}): pass\n"
        )
        other = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert "another process is running in" in other.stderr
        with (
            pytest.raises(UserError, match="another process is running in"),
            RunFolder(tmp_path / "run").held(identity),
        ):
            pass
    with RunFolder(tmp_path / "run").held(identity):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = (
        "import os, signal\n"
        "from nequip_decorr.md.running.folder import RunFolder\n"
        f"with RunFolder({str(tmp_path / 'run')!r}).held({{}}):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / "run" / "lock").exists()
    with RunFolder(tmp_path / "run").held({}):
        pass
