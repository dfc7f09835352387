"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL small enough to learn on two cores: their configurations and processors."""

from typing import TYPE_CHECKING, Any, Literal, assert_never

from ivcp.demo.tiny_tokenizer import SPECIAL_TOKENS
from ivcp.torchvision_compat import register_missing_operators

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin, Qwen2Tokenizer

Architecture = Literal["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]

PATCH_SIZE, MERGE_SIZE, TEMPORAL_PATCH_SIZE = 8, 2, 2
IMAGE_SIZE = 48
"""Width and height in pixels that the model is meant for: 9 tokens per two frames."""

NUM_FRAMES = 8
"""Frames per clip that the model is meant for."""

_TEXT_HIDDEN_SIZE, _VISION_HIDDEN_SIZE = 128, 96
_INITIALIZER_RANGE = 0.08
"""With transformers' default of 0.02 so small a model stays on its first plateau for epochs."""
_VOCAB_MULTIPLE = 64


def build_model(architecture: Architecture, tokenizer: "Qwen2Tokenizer") -> "PreTrainedModel":
    """Build the model with random weights, 0.9 million parameters in float32."""
    register_missing_operators()
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_config(_config(architecture, tokenizer))


def build_processor(architecture: Architecture, tokenizer: "Qwen2Tokenizer") -> "ProcessorMixin":
    """Build the architecture's own processor for frames of about ``IMAGE_SIZE`` pixels."""
    register_missing_operators()
    import transformers as hf

    grid: dict[str, Any] = {
        "patch_size": PATCH_SIZE,
        "merge_size": MERGE_SIZE,
        "temporal_patch_size": TEMPORAL_PATCH_SIZE,
        "size": {"shortest_edge": IMAGE_SIZE**2, "longest_edge": IMAGE_SIZE**2},
    }
    videos: dict[str, Any] = grid | {"cap_pixels_per_frame": False}  # the budget above is the cap
    images = hf.Qwen2VLImageProcessor(**grid)
    match architecture:
        case "qwen2_vl":
            video_processor = hf.Qwen2VLVideoProcessor(**videos)
            return hf.Qwen2VLProcessor(images, tokenizer, video_processor, chat_template=tokenizer.chat_template)
        case "qwen2_5_vl":
            video_processor = hf.Qwen2VLVideoProcessor(**videos)
            return hf.Qwen2_5_VLProcessor(images, tokenizer, video_processor, chat_template=tokenizer.chat_template)
        case "qwen3_vl":
            video_processor = hf.Qwen3VLVideoProcessor(**{**videos, "size": _clip_budget()})
            return hf.Qwen3VLProcessor(images, tokenizer, video_processor, chat_template=tokenizer.chat_template)
        case _:
            assert_never(architecture)


def _clip_budget() -> dict[str, int]:
    """Qwen3-VL's budget counts the pixels of all frames."""
    return {"shortest_edge": NUM_FRAMES * IMAGE_SIZE**2, "longest_edge": NUM_FRAMES * IMAGE_SIZE**2}


def _config(architecture: Architecture, tokenizer: "Qwen2Tokenizer") -> "PreTrainedConfig":
    import transformers as hf

    match architecture:
        case "qwen2_vl":
            return hf.Qwen2VLConfig(
                text_config=_text_config(tokenizer, mrope_section=[4, 6, 6]),
                vision_config=_vision_config(embed_dim=_VISION_HIDDEN_SIZE, hidden_size=_TEXT_HIDDEN_SIZE, mlp_ratio=4),
                **_top_level(tokenizer),
            )
        case "qwen2_5_vl":
            return hf.Qwen2_5_VLConfig(
                text_config=_text_config(tokenizer, mrope_section=[4, 6, 6]),
                vision_config=_vision_config(
                    hidden_size=_VISION_HIDDEN_SIZE,
                    intermediate_size=3 * _VISION_HIDDEN_SIZE,
                    out_hidden_size=_TEXT_HIDDEN_SIZE,
                    window_size=2 * MERGE_SIZE * PATCH_SIZE,
                    fullatt_block_indexes=[1],
                ),
                **_top_level(tokenizer),
            )
        case "qwen3_vl":
            return hf.Qwen3VLConfig(
                text_config=_text_config(tokenizer, mrope_section=[6, 5, 5]) | {"head_dim": 32},
                vision_config=_vision_config(
                    hidden_size=_VISION_HIDDEN_SIZE,
                    intermediate_size=4 * _VISION_HIDDEN_SIZE,
                    out_hidden_size=_TEXT_HIDDEN_SIZE,
                    num_position_embeddings=(2 * IMAGE_SIZE // PATCH_SIZE) ** 2,
                    deepstack_visual_indexes=[0],
                ),
                **_top_level(tokenizer),
            )
        case _:
            assert_never(architecture)


def _text_config(tokenizer: "Qwen2Tokenizer", *, mrope_section: list[int]) -> dict[str, Any]:
    return {
        "vocab_size": -(-len(tokenizer) // _VOCAB_MULTIPLE) * _VOCAB_MULTIPLE,
        "hidden_size": _TEXT_HIDDEN_SIZE,
        "intermediate_size": 3 * _TEXT_HIDDEN_SIZE,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": _INITIALIZER_RANGE,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": mrope_section},
        "bos_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }


def _vision_config(**sizes: Any) -> dict[str, Any]:
    return {
        "depth": 2,
        "num_heads": 4,
        "patch_size": PATCH_SIZE,
        "spatial_merge_size": MERGE_SIZE,
        "temporal_patch_size": TEMPORAL_PATCH_SIZE,
        "initializer_range": _INITIALIZER_RANGE,
        **sizes,
    }


def _top_level(tokenizer: "Qwen2Tokenizer") -> dict[str, Any]:
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
