"""Filling a user's variables into a user's text, in a sandbox.

Only text that the program itself has written is a template: descriptions, requirements, examples. The values of the
variables are filled in unchanged, and never read as templates. jinja2 is imported with the first template.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mellea_sc.core.base import Span, text_of
from mellea_sc.core.errors import PromptTemplateError
from mellea_sc.core.plain_text import shortened

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True
    )


def check_template(template: str, names: Iterable[str]) -> None:
    """Raise unless the template is valid and uses only these variables.

    Raises:
        PromptTemplateError: its syntax is wrong, or it uses an undefined variable.
    """
    from jinja2 import TemplateSyntaxError
    from jinja2.meta import find_undeclared_variables

    environment = _environment()
    try:
        used = find_undeclared_variables(environment.parse(template))
    except Exception as error:
        where = f"line {error.lineno} of " if isinstance(error, TemplateSyntaxError) else ""
        raise PromptTemplateError(
            f"{where}the template {shortened(template, 60)!r}: {str(error) or type(error).__name__}"
        ) from error
    if unknown := sorted(used - set(names) - set(environment.globals)):
        raise PromptTemplateError(
            f"the template {shortened(template, 60)!r} uses {', '.join(unknown)}, which is not among the "
            f"user_variables ({', '.join(sorted(names)) or 'none'})"
        )


def fill(template: str, variables: Mapping[str, Span]) -> str:
    """The template with the variables filled in.

    Raises:
        PromptTemplateError: it cannot be rendered, or asks for what the sandbox forbids.
    """
    texts = {name: text_of(value) for name, value in variables.items()}
    try:
        return _environment().from_string(template).render(texts)
    except Exception as error:  # whatever it calls
        raise PromptTemplateError(
            f"the template {shortened(template, 60)!r}: {str(error) or type(error).__name__}"
        ) from error
