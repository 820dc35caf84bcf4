"""The common options of ``run`` and ``chat``, and what --headers-from names. Quick to import, for --help."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypedDict

__all__ = ["Settings", "headers_from"]


class Settings(TypedDict):
    """The settings of the command line; ``None``: not given."""

    max_sentences: int | None
    max_words: int | None
    must_not: tuple[str, ...]
    require: tuple[str, ...]
    chunking: Literal["sentence", "sentences", "word", "paragraph", "none"]
    strategy: Literal["none", "reject", "repair", "backtrack", "race"]
    attempts: int | None
    backend: str | None
    model: str | None
    base_url: str | None
    headers_from: str | None
    system: str | None
    max_tokens: int | None
    temperature: float | None
    seed: int | None
    timeout: float | None
    retries: int | None
    as_json: bool
    explain: bool


def headers_from(path: str | None) -> dict[str, str] | None:
    """Read headers from a file, where other users cannot read them as they can a command line.

    It has one ``Name: value`` per line; empty lines and lines with ``#`` are skipped.

    Raises:
        InvalidOption: the file cannot be read, or a line has no colon.
    """
    from mellea_sc.core.errors import InvalidOption

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
