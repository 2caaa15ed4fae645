"""HTML pages from templates."""

from __future__ import annotations

from typing import Any

import jinja2

from nequip_decorr import __version__


def render_page(package: str, template: str, **values: Any) -> str:
    """A page of a template in the ``templates`` of a package.

    Values are escaped; a name of the template without a value raises an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(version=__version__, **values)
