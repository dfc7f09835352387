"""Tiny models with ears: real configurations and processors, random weights, vocabularies trained here.

They hear up to four seconds of a sound, 16 bands of its spectrum.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import transformers as hf
from numpy.typing import NDArray

from ivcp.torchvision_compat import register_missing_operators
from tests.tiny_families import save_random
from tests.tiny_family_parts import experts, qwen_tokenizer, text

RATE = 16_000
SECONDS = 4
"""The longest sound."""
_BANDS = 16
_TOKENS = {
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "audio_token": "<|AUDIO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
_OMNI_TEMPLATE = """
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- for item in message.content -%}
{%- if item.type == 'text' -%}{{- item.text -}}
{%- elif item.type == 'audio' -%}{{- '<|audio_bos|><|AUDIO|><|audio_eos|>' -}}
{%- else -%}{{- '<|vision_bos|><|' + item.type.upper() + '|><|vision_eos|>' -}}
{%- endif -%}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\\n' if add_generation_prompt else '' -}}
"""


def build_tiny_hearing(directory: Path, family: str, *, seed: int = 0) -> Path:
    """Writes a tiny model of `family`, a transformers model type, as a `from_pretrained` directory."""
    config, processor, kind = tiny_parts(family)
    return save_random(directory, lambda: kind(config), processor, seed=seed)


def tiny_parts(family: str) -> tuple[Any, Any, Any]:
    """Configuration, processor, and the class of the model."""
    register_missing_operators()
    return _BUILDERS[family]()


def tone(hertz: float, seconds: float = 1.0, *, loud: float = 0.5, rate: int = RATE) -> NDArray[np.float32]:
    """A sine, (num_samples,)."""
    wave = loud * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return wave.astype(np.float32)


def sound_of(number: int) -> NDArray[np.float32]:
    """A sound that rises or falls, and lasts a little longer for each number: (num_samples,)."""
    ends = (300.0 + 400 * (number % 3), 2000.0)
    pitch = np.linspace(*(ends if number % 2 else ends[::-1]), num=round((0.6 + 0.1 * number) * RATE))
    noise = 0.01 * np.random.default_rng(number).standard_normal(len(pitch))
    return (0.4 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE) + noise).astype(np.float32)


def _extractor() -> Any:
    return hf.WhisperFeatureExtractor(feature_size=_BANDS, chunk_length=SECONDS)


def _audio() -> dict[str, Any]:
    return {
        "num_mel_bins": _BANDS,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "d_model": 32,
        "max_source_positions": SECONDS * 50,
    }


def _omni() -> tuple[Any, Any, Any]:
    tokenizer = qwen_tokenizer(**_TOKENS)
    grid: dict[str, Any] = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    processor = hf.Qwen2_5OmniProcessor(
        hf.Qwen2VLImageProcessor(**grid),
        hf.Qwen2VLVideoProcessor(**grid, cap_pixels_per_frame=False),
        _extractor(),
        tokenizer,
        chat_template=_OMNI_TEMPLATE,
    )
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in _TOKENS.items()}
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 8,
        "out_hidden_size": 64,
        "window_size": 32,
        "fullatt_block_indexes": [1],
    }
    config = hf.Qwen2_5OmniThinkerConfig(
        audio_config=_audio() | {"output_dim": 64, "n_window": 25},
        vision_config=vision,
        text_config=text("qwen2_5_omni_text", tokenizer) | {"rope_parameters": rope},
        image_token_index=ids["image_token"],
        video_token_index=ids["video_token"],
        audio_token_index=ids["audio_token"],
        audio_start_token_id=ids["audio_bos_token"],
        audio_end_token_id=ids["audio_eos_token"],
        vision_start_token_id=ids["vision_bos_token"],
        vision_end_token_id=ids["vision_eos_token"],
    )
    return config, processor, hf.Qwen2_5OmniThinkerForConditionalGeneration


def _qwen3_omni() -> tuple[Any, Any, Any]:
    tokenizer = qwen_tokenizer(**_TOKENS)
    grid: dict[str, Any] = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    processor = hf.Qwen3OmniMoeProcessor(
        hf.Qwen2VLImageProcessor(**grid),
        hf.Qwen2VLVideoProcessor(**grid, cap_pixels_per_frame=False),
        _extractor(),
        tokenizer,
        chat_template=_OMNI_TEMPLATE,
    )
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in _TOKENS.items()}
    sizes = text("qwen3_omni_moe_text", tokenizer) | experts("qwen3_omni_moe_text") | {"head_dim": 16}
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 8,
        "out_hidden_size": 64,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    config = hf.Qwen3OmniMoeThinkerConfig(
        audio_config=_audio() | {"output_dim": 64, "downsample_hidden_size": 16},
        vision_config=vision,
        text_config=sizes | {"rope_parameters": rope},
        position_id_per_seconds=13,
        audio_start_token_id=ids["audio_bos_token"],
        vision_start_token_id=ids["vision_bos_token"],
        audio_token_id=ids["audio_token"],
        image_token_id=ids["image_token"],
        video_token_id=ids["video_token"],
    )
    # Some of its methods ask for what only the configuration files of real models hold.
    config.seconds_per_chunk = 2
    config.vision_end_token_id = ids["vision_eos_token"]
    config.audio_end_token_id = ids["audio_eos_token"]
    return config, processor, hf.Qwen3OmniMoeThinkerForConditionalGeneration


def _qwen2_audio() -> tuple[Any, Any, Any]:
    tokenizer = qwen_tokenizer(**{name: token for name, token in _TOKENS.items() if name.startswith("audio")})
    processor = hf.Qwen2AudioProcessor(_extractor(), tokenizer, chat_template=_OMNI_TEMPLATE)
    config = hf.Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **_audio()},
        text_config=text("qwen2", tokenizer),
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    return config, processor, hf.Qwen2AudioForConditionalGeneration


_BUILDERS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "qwen2_5_omni_thinker": _omni,
    "qwen2_audio": _qwen2_audio,
    "qwen3_omni_moe_thinker": _qwen3_omni,
}
FAMILIES = tuple(_BUILDERS)
"""Every tested family, by transformers' model type."""
