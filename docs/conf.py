"""Sphinx configuration: ``make docs`` builds this site into ``docs/_build``."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from posixpath import normpath
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

from docutils import nodes  # noqa: E402
from latex2mathml.converter import convert  # noqa: E402

import nequip_decorr  # noqa: E402

project = "nequip-decorr"
author = "The nequip-decorr developers"
project_copyright = author
version = release = nequip_decorr.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "_generated"]  # pages include the latter

html_theme = "furo"
html_math_renderer = "mathml"
html_title = f"nequip-decorr {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
pygments_style = "friendly"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_timeout = 900  # a cell; all of them take two minutes on two free cores
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature and the docstring say it
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("YAML", "notes_style")]

GENERATED = DOCS / "_generated"


def relocate(text: str, folder: str) -> str:
    """Markdown of ``folder``, with its links to files turned into their paths."""

    def path(match: re.Match[str]) -> str:
        words, target = match.groups()
        if target.startswith(("http", "#")):
            return match.group()
        return f"{words} (`{normpath(f'{folder}/{target}')}`)"

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)]*)\)", path, text)


def collect() -> None:
    """Copy what benchmarks have written, so that pages can include it."""
    GENERATED.mkdir(exist_ok=True)
    for name in ("hfox", "practice", "cost"):
        results = ROOT / "benchmarks" / name / "results"
        target = GENERATED / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for path in sorted(results.iterdir()):
            if path.suffix == ".png":
                shutil.copy(path, target)
            elif path.suffix == ".md":
                text = relocate(
                    path.read_text(encoding="utf-8"), f"benchmarks/{name}/results"
                )
                (target / path.name).write_text(text, encoding="utf-8")


collect()


def escape_bars(*arguments: Any) -> None:
    """|rho| in a docstring is an absolute value, not a substitution of reST."""
    lines = arguments[-1]
    lines[:] = [re.sub(r"(?<![\\`|])\|(\w+)\|", r"\|\1\|", line) for line in lines]


def write_mathml(visitor: Any, node: Any) -> None:
    """Formulas that a browser shows by itself, without a script from elsewhere."""
    block = isinstance(node, nodes.math_block)
    mathml = convert(node.astext(), display="block" if block else "inline")
    visitor.body.append(f'<div class="formula">{mathml}</div>' if block else mathml)
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Sphinx calls this."""
    app.add_html_math_renderer("mathml", (write_mathml, None), (write_mathml, None))
    app.connect("autodoc-process-docstring", escape_bars)
