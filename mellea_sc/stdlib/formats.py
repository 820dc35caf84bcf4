"""Turns the argument ``format=`` into a format that answers are validated against."""

from __future__ import annotations

from mellea_sc.core.backend import CheckedSchema, Format, schema_of

__all__ = ["checked"]


def checked(format: Format | None) -> Format | None:
    """The same format, but a plain JSON schema as a :class:`CheckedSchema`.

    Raises:
        InvalidOption: it is neither a pydantic model class nor a JSON schema; or the schema is of an unknown draft,
            or has a reference that leads nowhere or in a circle.
        MissingExtra: for a schema, if a package of the extra ``json`` is not installed.
    """
    schema = schema_of(format)
    if schema is None or isinstance(format, type | CheckedSchema):
        return format
    # imported here, because that takes as long as everything else that a session does
    from mellea_sc.stdlib.requirements.json.schema import misfits_with

    return CheckedSchema(schema, misfits_with(schema))
