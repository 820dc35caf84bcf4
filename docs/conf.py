"""How the site is built; ``nox -s docs`` does it, and takes every warning for an error.

Nothing is fetched: not while it is built, and not by who reads it (no fonts, scripts or pictures of
other hosts).
"""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path

import attrs
from docutils import nodes
from sphinx.addnodes import desc, desc_annotation, desc_signature, pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer

project = "mellea_sc"
author = "The mellea_sc founders"
version = release = version_of("mellea_sc")
copyright = author

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["attrs_inline", "deflist", "fieldlist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = True  # where a name is imported from
toc_object_entries_show_parents = "hide"
default_role = "py:obj"

PUBLIC = [
    "mellea_sc",
    "mellea_sc.stdlib",
    "mellea_sc.backends",
    "mellea_sc.core",
    "mellea_sc.asgi",
    "mellea_sc.display",
    "mellea_sc.testing",
    "mellea_sc.testing.server",
]
"""Where users import from, the shortest way first."""

INTERNAL = {"AnyClient", "Args", "Progress", "T", "Verify"}
"""What stands in a public signature and has no page: nothing to import. The fewer the better."""

OTHERS = {*sys.stdlib_module_names, "AbstractAsyncContextManager"}
"""Names without a dot that are not ours."""

pygments_dark_style = "github-dark"
html_theme = "furo"
html_title = "mellea_sc"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"code-font-size": "0.75rem"},  # 96 columns fit
}


analyze = ModuleAnalyzer.analyze


def one_signature(self: ModuleAnalyzer) -> None:
    """Overloads tell types of results apart by repeating all parameters: one signature says them."""
    analyze(self)
    self.overloads.clear()


def bold_cancellation(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """What a cancellation leaves behind stands out, as in the docstrings of anyio and trio."""
    lines[:] = [re.sub(r"^(\s*)Cancellation: ", r"\1**Cancellation:** ", line) for line in lines]


def no_type_before_a_colon(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Napoleon takes "The end: …" of an attribute for a type, unless an empty one stands before."""
    if what in {"attribute", "data", "property"} and lines:
        lines[0] = f": {lines[0]}"


def docstring_of_data(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """A type alias has its docstring only in the source of its module, which the package's imports tell."""
    package, _, attribute = name.rpartition(".")
    if what != "data" or not hasattr(sys.modules[package], "__path__"):
        return
    source = Path(str(sys.modules[package].__file__))
    stub = source.with_suffix(".pyi")
    for node in ast.parse((stub if stub.exists() else source).read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and attribute in {one.name for one in node.names}:
            documented = ModuleAnalyzer.for_module(str(node.module)).find_attr_docs()
            lines[:] = documented["", attribute]


def attrs_defaults(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str, str | None] | None:
    """The defaults of an attrs class; what attrs generates has ``attr_dict['x'].default`` there."""
    if what not in {"class", "exception"} or signature is None or not attrs.has(obj):
        return None
    fields = attrs.fields_dict(obj)

    def default(found: re.Match[str]) -> str:
        value = fields[found[1]].default
        return "…" if isinstance(value, attrs.Factory) else repr(value)

    said = re.sub(r"attr_dict\['(\w+)'\]\.default", default, signature)
    return said.replace("NOTHING", "…"), returns


def no_values_of_attributes(app: Sphinx, doctree: nodes.document) -> None:
    """What an attribute begins with is of no interest, and often long."""
    for described in doctree.findall(desc):
        if described["objtype"] == "attribute":
            for signature in described.findall(desc_signature):
                for part in list(signature.findall(desc_annotation)):
                    if part.astext().startswith(" = "):
                        part.parent.remove(part)


def where_it_is_documented(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.Element
) -> nodes.Node | None:
    """A name is documented where users import it from, and stands in signatures with its module.

    What is left over is a warning, and so an error: a public name that no page of the reference has.
    """
    if node.get("refdomain") != "py":
        return None
    domain = env.domains.python_domain
    target: str = node["reftarget"]
    parts = target.split(".")
    for name in (".".join(parts[-2:]), parts[-1]):
        for package in PUBLIC:
            if (documented := f"{package}.{name}") in domain.objects:
                return domain.resolve_xref(
                    env, node.get("refdoc", ""), app.builder, "obj", documented, node, shown
                )
    if node.get("reftype") == "obj":  # words in single backticks need not be names
        return shown
    of_others = parts[0] != "mellea_sc" and ("." in target or target in OTHERS)
    if of_others or parts[-1] in INTERNAL or parts[-1].startswith("_"):
        return shown
    return None


def setup(app: Sphinx) -> None:
    """Sphinx calls it, once."""
    app.connect("autodoc-process-docstring", docstring_of_data, priority=300)
    app.connect("autodoc-process-docstring", bold_cancellation)
    app.connect("autodoc-process-docstring", no_type_before_a_colon, priority=400)
    app.connect("autodoc-process-signature", attrs_defaults)
    app.connect("doctree-read", no_values_of_attributes)
    ModuleAnalyzer.analyze = one_signature
    app.connect("missing-reference", where_it_is_documented)
