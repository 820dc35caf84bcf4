"""How the site is built; ``nox -s docs`` does it, and takes every warning for an error.

Nothing is fetched: not while it is built, and not by who reads it (no fonts, scripts or pictures of
other hosts).
"""

from __future__ import annotations

import re
from importlib.metadata import version as version_of

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

project = "mellea_sc"
author = "The mellea_sc founders"
version = release = version_of("mellea_sc")
copyright = author  # noqa: A001 - Sphinx calls it so

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
nitpicky = True
suppress_warnings = ["myst.xref_missing"] if False else []

myst_enable_extensions = ["attrs_inline", "deflist", "fieldlist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
default_role = "py:obj"

html_theme = "furo"
html_title = "mellea_sc"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}


def bold_cancellation(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """What a cancellation leaves behind stands out, as in the docstrings of anyio and trio."""
    lines[:] = [re.sub(r"^(\s*)Cancellation: ", r"\1**Cancellation:** ", line) for line in lines]


def by_its_last_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.Element
) -> nodes.Node | None:
    """A class is documented where users import it from, and named in signatures by its module."""
    if node.get("refdomain") != "py":
        return None
    objects = env.domains.python_domain.objects
    name = node["reftarget"].rsplit(".", 1)[-1]
    for documented in (f"mellea_sc.{name}", f"mellea_sc.backends.{name}", f"mellea_sc.testing.{name}"):
        if documented in objects:
            return env.domains.python_domain.resolve_xref(
                env, node["refdoc"] if "refdoc" in node else env.docname, app.builder, "obj", documented, node, shown
            )
    # a single word in backticks need not be a name; and what is not public has no page
    if node.get("reftype") == "obj" or "." not in node["reftarget"]:
        return shown
    return None


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", bold_cancellation)
    app.connect("missing-reference", by_its_last_name)
