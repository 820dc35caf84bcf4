"""Models whose names differ between servers: Mellea's constants, as far as the backends here can run them."""

from __future__ import annotations

from typing import Final, Literal

import attrs

from mellea_sc.core.errors import InvalidOption


@attrs.frozen(kw_only=True)
class ModelIdentifier:
    """One model, under the names that servers know it by; goes wherever a ``model_id`` goes.

    Args:
        ollama_name: As ``ollama list`` shows it.
        openai_name: At the server that offers it by OpenAI's protocol.
        hf_model_name: Its repository at Hugging Face: what a server of one's own mostly calls it.
    """

    ollama_name: str | None = None
    openai_name: str | None = None
    hf_model_name: str | None = None


def name_of(model_id: str | ModelIdentifier, provider: Literal["local", "ollama", "openai"]) -> str:
    """What a kind of server calls a model.

    Args:
        model_id: The model; a ``str`` is a name already.
        provider: ``"openai"`` also takes the name at Hugging Face, where there is no other.

    Raises:
        InvalidOption: it has no name there, or is neither.
    """
    if isinstance(model_id, str):
        return model_id
    if not isinstance(model_id, ModelIdentifier):
        raise InvalidOption(f"model_id must be a str or one of model_ids, not {model_id!r}")
    name = {
        "local": None,  # it wants a file
        "ollama": model_id.ollama_name,
        "openai": model_id.openai_name or model_id.hf_model_name,
    }[provider]
    if not name:
        raise InvalidOption(
            f"the {provider} backend knows no name for {model_id!r}: give it as a str"
        )
    return name


IBM_GRANITE_4_HYBRID_MICRO: Final = ModelIdentifier(
    ollama_name="granite4:micro-h", hf_model_name="ibm-granite/granite-4.0-h-micro"
)
IBM_GRANITE_4_HYBRID_TINY: Final = ModelIdentifier(
    ollama_name="granite4:tiny-h", hf_model_name="ibm-granite/granite-4.0-h-tiny"
)
IBM_GRANITE_4_HYBRID_SMALL: Final = ModelIdentifier(
    ollama_name="granite4:small-h", hf_model_name="ibm-granite/granite-4.0-h-small"
)
IBM_GRANITE_4_HYBRID_1B: Final = ModelIdentifier(
    ollama_name="granite4:1b-h", hf_model_name="ibm-granite/granite-4.0-h-1b"
)
IBM_GRANITE_4_HYBRID_350m: Final = ModelIdentifier(
    ollama_name="granite4:350m-h", hf_model_name="ibm-granite/granite-4.0-h-350m"
)
IBM_GRANITE_4_1_3B: Final = ModelIdentifier(
    ollama_name="granite4.1:3b", hf_model_name="ibm-granite/granite-4.1-3b"
)
IBM_GRANITE_4_1_8B: Final = ModelIdentifier(
    ollama_name="granite4.1:8b", hf_model_name="ibm-granite/granite-4.1-8b"
)
IBM_GRANITE_4_1_30B: Final = ModelIdentifier(
    ollama_name="granite4.1:30b", hf_model_name="ibm-granite/granite-4.1-30b"
)
IBM_GRANITE_3_2_8B: Final = ModelIdentifier(
    ollama_name="granite3.2:8b", hf_model_name="ibm-granite/granite-3.2-8b-instruct"
)
IBM_GRANITE_3_3_8B: Final = ModelIdentifier(
    ollama_name="granite3.3:8b", hf_model_name="ibm-granite/granite-3.3-8b-instruct"
)
IBM_GRANITE_4_MICRO_3B: Final = ModelIdentifier(
    ollama_name="granite4:micro", hf_model_name="ibm-granite/granite-4.0-micro"
)
IBM_GRANITE_3_3_VISION_2B: Final = ModelIdentifier(
    ollama_name="ibm/granite3.3-vision:2b", hf_model_name="ibm-granite/granite-vision-3.3-2b"
)
IBM_GRANITE_VISION_4_1_4B: Final = ModelIdentifier(
    ollama_name="hf.co/ibm-granite/granite-vision-4.1-4b-GGUF:Q4_K_M",
    hf_model_name="ibm-granite/granite-vision-4.1-4b",
)
IBM_GRANITE_GUARDIAN_3_0_2B: Final = ModelIdentifier(
    ollama_name="granite3-guardian:2b", hf_model_name="ibm-granite/granite-guardian-3.0-2b"
)
META_LLAMA_4_SCOUT_17B_16E_INSTRUCT: Final = ModelIdentifier(
    ollama_name="llama4:scout", hf_model_name="unsloth/Llama-4-Scout-17B-16E-Instruct"
)
META_LLAMA_4_MAVERICK_17B_128E_INSTRUCT: Final = ModelIdentifier(
    ollama_name="llama4:maverick", hf_model_name="unsloth/Llama-4-Maverick-17B-128E-Instruct"
)
META_LLAMA_3_3_70B: Final = ModelIdentifier(
    ollama_name="llama3.3:70b", hf_model_name="unsloth/Llama-3.3-70B-Instruct"
)
META_LLAMA_3_2_3B: Final = ModelIdentifier(
    ollama_name="llama3.2:3b", hf_model_name="unsloth/Llama-3.2-3B-Instruct"
)
META_LLAMA_GUARD3_1B: Final = ModelIdentifier(
    ollama_name="llama-guard3:1b", hf_model_name="meta-llama/Llama-Guard-3-1B"
)
META_LLAMA_3_2_1B: Final = ModelIdentifier(
    ollama_name="llama3.2:1b", hf_model_name="unsloth/Llama-3.2-1B"
)
MISTRALAI_MISTRAL_0_3_7B: Final = ModelIdentifier(
    ollama_name="mistral:7b", hf_model_name="mistralai/Mistral-7B-Instruct-v0.3"
)
MISTRALAI_MISTRAL_SMALL_24B: Final = ModelIdentifier(
    ollama_name="mistral-small:latest",
    hf_model_name="mistralai/Mistral-Small-3.1-24B-Instruct-2503",
)
MISTRALAI_MISTRAL_LARGE_123B: Final = ModelIdentifier(
    ollama_name="mistral-large:latest", hf_model_name="mistralai/Mistral-Large-Instruct-2411"
)
QWEN3_0_6B: Final = ModelIdentifier(ollama_name="qwen3:0.6b", hf_model_name="Qwen/Qwen3-0.6B")
QWEN3_1_7B: Final = ModelIdentifier(ollama_name="qwen3:1.7b", hf_model_name="Qwen/Qwen3-1.7B")
QWEN3_8B: Final = ModelIdentifier(ollama_name="qwen3:8b", hf_model_name="Qwen/Qwen3-8B")
QWEN3_14B: Final = ModelIdentifier(ollama_name="qwen3:14b", hf_model_name="Qwen/Qwen3-14B")
NVIDIA_NEMOTRON_3_NANO_4B: Final = ModelIdentifier(
    ollama_name="nemotron-3-nano:4b", hf_model_name="nvidia/NVIDIA-Nemotron-3-Nano-4B-BF16"
)
NVIDIA_NEMOTRON_3_NANO_30B_A3B: Final = ModelIdentifier(
    ollama_name="nemotron-3-nano:30b",
    openai_name="nvidia/nemotron-3-nano-30b-a3b",
    hf_model_name="nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
)
NVIDIA_NEMOTRON_3_SUPER_120B_A12B: Final = ModelIdentifier(
    ollama_name="nemotron-3-super:120b",
    openai_name="nvidia/nemotron-3-super-120b-a12b",
    hf_model_name="nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16",
)
NVIDIA_NEMOTRON_3_ULTRA_550B_A55B: Final = ModelIdentifier(
    ollama_name="nemotron-3-ultra:cloud",
    openai_name="nvidia/nemotron-3-ultra-550b-a55b",
    hf_model_name="nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16",
)
NVIDIA_NEMOTRON_3_NANO_OMNI_30B_A3B: Final = ModelIdentifier(
    ollama_name="nemotron3:33b",
    openai_name="nvidia/nemotron-3-nano-omni-30b-a3b-reasoning",
    hf_model_name="nvidia/Nemotron-3-Nano-Omni-30B-A3B-Reasoning-BF16",
)
NVIDIA_NEMOTRON_NANO_9B_V2: Final = ModelIdentifier(
    openai_name="nvidia/nvidia-nemotron-nano-9b-v2",
    hf_model_name="nvidia/NVIDIA-Nemotron-Nano-9B-v2",
)
NVIDIA_LLAMA_3_1_NEMOTRON_NANO_8B: Final = ModelIdentifier(
    openai_name="nvidia/llama-3.1-nemotron-nano-8b-v1",
    hf_model_name="nvidia/Llama-3.1-Nemotron-Nano-8B-v1",
)
NVIDIA_LLAMA_3_3_NEMOTRON_SUPER_49B: Final = ModelIdentifier(
    openai_name="nvidia/llama-3.3-nemotron-super-49b-v1.5",
    hf_model_name="nvidia/Llama-3_3-Nemotron-Super-49B-v1_5",
)
NVIDIA_LLAMA_3_1_NEMOTRON_ULTRA_253B: Final = ModelIdentifier(
    openai_name="nvidia/llama-3.1-nemotron-ultra-253b-v1",
    hf_model_name="nvidia/Llama-3_1-Nemotron-Ultra-253B-v1",
)
NVIDIA_LLAMA_3_1_NEMOTRON_70B: Final = ModelIdentifier(
    ollama_name="nemotron:70b",
    openai_name="nvidia/llama-3.1-nemotron-70b-instruct",
    hf_model_name="nvidia/Llama-3.1-Nemotron-70B-Instruct-HF",
)
NVIDIA_NEMOTRON_MINI_4B: Final = ModelIdentifier(
    ollama_name="nemotron-mini:4b",
    openai_name="nvidia/nemotron-mini-4b-instruct",
    hf_model_name="nvidia/Nemotron-Mini-4B-Instruct",
)
OPENAI_GPT_OSS_20B: Final = ModelIdentifier(
    ollama_name="gpt-oss:20b", hf_model_name="openai/gpt-oss-20b"
)
OPENAI_GPT_OSS_120B: Final = ModelIdentifier(
    ollama_name="gpt-oss:120b", hf_model_name="openai/gpt-oss-120b"
)
OPENAI_GPT_5_1: Final = ModelIdentifier(openai_name="gpt-5.1")
GOOGLE_GEMMA_3N_E4B: Final = ModelIdentifier(
    ollama_name="gemma3n:e4b", hf_model_name="google/gemma-3n-e4b-it"
)
MS_PHI_4_14B: Final = ModelIdentifier(ollama_name="phi4:14b", hf_model_name="microsoft/phi-4")
MS_PHI_4_MINI_REASONING_4B: Final = ModelIdentifier(
    ollama_name="phi4-mini-reasoning:3.8b", hf_model_name="microsoft/Phi-4-mini-flash-reasoning"
)
DEEPSEEK_R1_8B: Final = ModelIdentifier(
    ollama_name="deepseek-r1:8b", hf_model_name="deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
)
HF_SMOLLM2_2B: Final = ModelIdentifier(
    ollama_name="smollm2:1.7b", hf_model_name="HuggingFaceTB/SmolLM2-1.7B-Instruct"
)
