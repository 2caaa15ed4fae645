"""``make release-check``: is what a release would upload complete, and does it install?

Builds sdist and wheel, checks their metadata, installs the wheel into an environment
of its own (torch for the CPU first), and runs the installed command outside of the
checkout.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CPU_TORCH = "https://download.pytorch.org/whl/cpu"


def released_version(changelog: str) -> str:
    """Top version of a changelog; ``Unreleased`` where it is not yet one."""
    match = re.search(r"^## \[?([^\]\s]+)", changelog, re.MULTILINE)
    if match is None:
        raise ValueError("CHANGELOG.md has no section")
    return match.group(1)


def agree(version: str, section: str) -> bool:
    """Whether a version belongs to the top section of the changelog."""
    if section == "Unreleased":
        return re.fullmatch(r"\d+\.\d+\.\d+\.dev\d+", version) is not None
    return version == section


def call(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command, show it, and return what it prints; ends when it fails."""
    print("$", *command, flush=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed: {' '.join(map(str, command))}")
    return done.stdout.strip()


def main() -> None:
    """Run all checks; see the module's docstring."""
    section = released_version((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        dist = folder / "dist"
        call(sys.executable, "-m", "build", "--outdir", dist)
        files = sorted(dist.iterdir())
        print(*(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB" for path in files))
        call(sys.executable, "-m", "twine", "check", "--strict", *files)
        (wheel,) = dist.glob("*.whl")
        venv.create(folder / "venv", with_pip=True)
        binaries = folder / "venv" / "bin"
        pip = (binaries / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt")
        call(*pip, "torch", "--no-deps", "--extra-index-url", CPU_TORCH)
        call(*pip, wheel)
        version = call(binaries / "nequip-decorr", "--version", cwd=folder)
        if not agree(version, section):
            sys.exit(f"version {version}, but the changelog begins with {section}")
        for name in ("inspect", "md", "compare"):
            call(binaries / "nequip-decorr", name, "--help", cwd=folder)
        (folder / "mine.yaml").write_text("defaults: [nequip_decorr: constant]\n")
        flag = (
            "from hydra import compose, initialize_config_dir; import os\n"
            "with initialize_config_dir(os.getcwd(), version_base=None):\n"
            "    import nequip_decorr\n"
            "    options = compose('mine').nequip_decorr\n"
            "    nequip_decorr.EdgeDecorrelation(**options)\n"
        )
        call(binaries / "python", "-W", "ignore", "-c", flag, cwd=folder)
    print(f"nequip-decorr {version} ({section}): builds, installs and runs")


if __name__ == "__main__":
    main()
