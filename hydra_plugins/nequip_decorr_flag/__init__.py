"""Hydra plugin: lets every hydra application find the ``nequip_decorr`` option group.

Hydra imports this when an application starts, so that ``import nequip`` alone costs
nothing.
"""

import sys
from importlib.metadata import PackageNotFoundError, distribution

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class NequipDecorrSearchPath(SearchPathPlugin):
    """Appends the package's option groups to the search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add ``nequip_decorr/conf``, after the user's own folders.

        Raises:
            RuntimeError: in a NequIP process where Lightning would not find the
                callback, so that the options would have no effect.
        """
        if is_installed():
            search_path.append(
                provider="nequip-decorr", path="pkg://nequip_decorr.conf"
            )
        elif "nequip" in sys.modules:
            raise RuntimeError(
                "nequip-decorr is on the Python path but not installed, or an older "
                "version is installed: Lightning would not find its callback and "
                "would train without it; run `pip install` for it again, or remove it "
                "from the path"
            )


def is_installed() -> bool:
    """Whether the entry point is registered that gives Lightning the callback."""
    try:
        found = distribution("nequip-decorr").entry_points
    except PackageNotFoundError:
        return False
    return any(each.value.startswith("nequip_decorr.training.flag:") for each in found)
