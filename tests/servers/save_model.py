"""Run as a script: the model of a GGUF file, saved as transformers and vLLM load it."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any


def main(weights: Path, directory: Path) -> None:
    """Save it, all of it or nothing."""
    draft = directory.with_name(f"{directory.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    transformers: Any = importlib.import_module("transformers")  # which has no types
    where = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    plain = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **where, dtype="float32", quantization_config=plain
    )
    model.save_pretrained(draft)
    transformers.AutoTokenizer.from_pretrained(**where).save_pretrained(draft)
    generation = draft / "generation_config.json"
    # without do_sample, transformers' server would take no notice of a temperature
    settings = {**json.loads(generation.read_text()), "max_new_tokens": 32, "do_sample": True}
    generation.write_text(json.dumps(settings))
    draft.replace(directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
