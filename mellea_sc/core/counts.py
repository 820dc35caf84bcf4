"""Arguments that are a number of things."""

from __future__ import annotations

from mellea_sc.core.errors import InvalidOption

__all__ = ["check_count"]


def check_count(name: str, value: object, least: int = 1, *, or_none: bool = False) -> None:
    """Check an argument that is a number of things.

    Args:
        name: The argument, for people.
        value: Its value.
        least: The smallest number that it may be.
        or_none: Whether it may be ``None``, too.

    Raises:
        InvalidOption: it is no integer, or too small.
    """
    if value is None and or_none:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        allowed = f"an integer of at least {least}{' or None' if or_none else ''}"
        raise InvalidOption(f"{name} must be {allowed}, not {value!r}")
