"""Headers from a file, where other users cannot read them as they can a command line."""

from __future__ import annotations

from pathlib import Path

from mellea_sc.core.errors import InvalidOption

__all__ = ["headers_from"]


def headers_from(path: str | None) -> dict[str, str] | None:
    """Read headers from a file with one ``Name: value`` per line; empty lines and lines with ``#`` are skipped.

    Raises:
        InvalidOption: the file cannot be read, or a line has no colon.
    """
    if path is None:
        return None
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise InvalidOption(f"--headers-from: {path} cannot be read") from None
    headers: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        name, colon, value = line.partition(":")
        if not line.strip() or line.startswith("#"):
            continue
        if not colon:  # the line is not quoted, because it may be a key
            raise InvalidOption(f"--headers-from: line {number} of {path} is not like Name: value")
        headers[name.strip()] = value.strip()
    return headers
