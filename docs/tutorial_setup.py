"""The tutorial runs in a scratch folder that looks like the root of the repository."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from IPython import get_ipython

root = Path.cwd().resolve()
while not (root / "configs" / "quickstart.yaml").exists():
    root = root.parent
scratch = Path(tempfile.mkdtemp(prefix="nequip-decorr-tutorial-"))
(scratch / "configs").symlink_to(root / "configs")
os.chdir(scratch)
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ["PYTHONPATH"] = f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["COLUMNS"] = "88"
os.environ["NO_COLOR"] = "1"
for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):
    os.environ.pop(name, None)


def bash(line, cell):
    """Shows what the commands print when they are done, and stops when one fails."""
    done = subprocess.run(
        ["bash", "-e", "-c", cell], capture_output=True, text=True, check=False
    )
    print(done.stdout.rstrip())
    if done.returncode:
        raise RuntimeError(done.stderr)


get_ipython().register_magic_function(bash, "cell")
