"""Hydra plugin: lets every hydra application find the ``nequip_decorr`` option group.

Hydra imports this when an application starts, so that ``import nequip`` alone costs
nothing.
"""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class NequipDecorrSearchPath(SearchPathPlugin):
    """Appends the package's option groups to the search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add ``nequip_decorr/conf``, after the user's own folders."""
        search_path.append(provider="nequip-decorr", path="pkg://nequip_decorr.conf")
