"""What importing costs, and that the version stands in one place."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, version

import pytest

import nequip_decorr


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_import_nequip_loads_nothing_of_ours() -> None:
    code = "import nequip, sys; print(*[m for m in sys.modules if 'decorr' in m])"
    assert python(code) == ""
    assert not [
        entry
        for entry in entry_points(group="nequip.extension")
        if "decorr" in entry.value
    ]


def test_importing_the_package_loads_no_library() -> None:
    heavy = "('torch', 'lightning', 'ase', 'matplotlib', 'nequip', 'hydra')"
    code = (
        f"import nequip_decorr, sys; print(*[m for m in {heavy} if m in sys.modules])"
    )
    assert python(code) == ""


def test_the_version_is_that_of_the_distribution() -> None:
    assert nequip_decorr.__version__ == version("nequip-decorr")


def test_public_names_load_on_use() -> None:
    for name in nequip_decorr.__all__:
        assert getattr(nequip_decorr, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = nequip_decorr.nonsense


def test_hydra_finds_the_option_group() -> None:
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    names = [
        plugin.__name__ for plugin in Plugins.instance().discover(SearchPathPlugin)
    ]
    assert "NequipDecorrSearchPath" in names
