"""HTML pages from templates."""

from __future__ import annotations

from typing import Any

import jinja2

from nequip_decorr import __version__

#: The package whose templates all pages may include.
OWN = "nequip_decorr.md.report"


def render_page(package: str, template: str, **values: Any) -> str:
    """A page of a template in the ``templates`` of a package, or of this one.

    Values are escaped; a name of the template without a value raises an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package), jinja2.PackageLoader(OWN)]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(version=__version__, **values)
