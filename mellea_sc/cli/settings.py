"""The common options of ``run`` and ``chat``. Imports nothing of the library, so that --help is quick."""

from __future__ import annotations

from typing import Literal, TypedDict

__all__ = ["Settings"]


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
