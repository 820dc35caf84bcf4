"""The files with what was measured: compact, with a line for each entry, so that a change can be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_results"]


def write_results(path: Path, found: Mapping[str, object]) -> None:
    """Write what was measured."""
    entries = [
        f"{json.dumps(name)}:{json.dumps(value, separators=(',', ':'))}"
        for name, value in found.items()
    ]
    path.write_text("{\n" + ",\n".join(entries) + "\n}\n")
