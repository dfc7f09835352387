"""Tiny models of every tested family: real configurations and processors, random weights, vocabularies trained here.

Their embeddings end with the last token of the tokenizer, so that the action token lies behind them. Frames are 32x32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
import transformers as hf

from ivcp.demo.tiny_architectures import Architecture
from ivcp.demo.tiny_model import build_tiny_model
from ivcp.demo.tiny_tokenizer import CHAT_TEMPLATE, SPECIAL_TOKENS, train_tokenizer, train_vocabulary
from ivcp.torchvision_compat import register_missing_operators
from tests.tiny_family_parts import (
    VICUNA_TEMPLATE,
    experts,
    im_template,
    llama_tokenizer,
    qwen3_5_text,
    qwen_tokenizer,
    text,
    vision,
)

SIDE = 32
"""Height and width of a frame in pixels."""

Built = tuple[Any, Any]
"""Configuration and processor."""


def build_tiny_family(directory: Path, family: str, *, seed: int = 0) -> Path:
    """Writes a tiny model of `family`, a transformers model type, as a `from_pretrained` directory."""
    if family in get_args(Architecture):
        return build_tiny_model(directory, architecture=family, warm_up=False, seed=seed)
    register_missing_operators()
    config, processor = _BUILDERS[family]()
    return save_random(directory, lambda: hf.AutoModelForImageTextToText.from_config(config), processor, seed=seed)


def save_random(directory: Path, make: Callable[[], Any], processor: Any, *, seed: int) -> Path:
    """Writes the model that `make` gives, with random weights, and its processor."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        for parameter in model.parameters():
            if parameter.ndim > 1:  # transformers' 0.02 leaves so small a model nearly blind and deaf
                torch.nn.init.normal_(parameter, std=0.08)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def _llava_next_video() -> Built:
    tokenizer = llama_tokenizer()
    size = {"height": SIDE, "width": SIDE}
    images = hf.LlavaNextImageProcessor(
        size={"shortest_edge": SIDE}, crop_size=size, image_grid_pinpoints=[[SIDE, 2 * SIDE]]
    )
    processor = hf.LlavaNextVideoProcessor(
        hf.LlavaNextVideoVideoProcessor(size={"shortest_edge": SIDE}, crop_size=size),
        images,
        tokenizer,
        chat_template=VICUNA_TEMPLATE,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    config = hf.LlavaNextVideoConfig(
        vision_config=vision(image_size=SIDE, patch_size=8, projection_dim=32) | {"model_type": "clip_vision_model"},
        text_config=text("llama", tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[SIDE, 2 * SIDE]],
    )
    return config, processor


def _llava_onevision() -> Built:
    tokenizer = qwen_tokenizer(image_token="<image>", video_token="<video>")
    size = {"height": SIDE, "width": SIDE}
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[SIDE, SIDE]]),
        tokenizer,
        hf.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=im_template("<video>", "<image>"),
    )
    tower = {"model_type": "siglip_vision_model", "vision_use_head": False}
    config = hf.LlavaOnevisionConfig(
        vision_config=vision(image_size=SIDE, patch_size=8) | tower,
        text_config=text("qwen2", tokenizer),
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
        image_grid_pinpoints=[[SIDE, SIDE]],
    )
    return config, processor


def _qwen3_5() -> Built:
    tokenizer, processor = _qwen3_vl_processor()
    return hf.Qwen3_5Config(text_config=qwen3_5_text(tokenizer), **_qwen3_vl_top(tokenizer)), processor


def _qwen3_5_moe() -> Built:
    tokenizer, processor = _qwen3_vl_processor()
    sizes = qwen3_5_text(tokenizer) | experts("qwen3_5_moe_text") | {"shared_expert_intermediate_size": 32}
    return hf.Qwen3_5MoeConfig(text_config=sizes, **_qwen3_vl_top(tokenizer)), processor


def _qwen3_vl_moe() -> Built:
    tokenizer, processor = _qwen3_vl_processor()
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    sizes = text("qwen3_vl_moe_text", tokenizer) | experts("qwen3_vl_moe_text")
    top = _qwen3_vl_top(tokenizer)
    top["vision_config"]["deepstack_visual_indexes"] = [0]
    return hf.Qwen3VLMoeConfig(text_config=sizes | {"head_dim": 16, "rope_parameters": rope}, **top), processor


def _qwen3_vl_processor() -> tuple[Any, Any]:
    tokenizer = train_tokenizer()
    grid = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    processor = hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessor(**grid),
        tokenizer,
        hf.Qwen3VLVideoProcessor(**grid, cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
    )
    return tokenizer, processor


def _qwen3_vl_top(tokenizer: Any) -> dict[str, Any]:
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    return {
        "vision_config": {
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 8,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
        },
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def _glm4v() -> Built:
    return _glm(hf.Glm4vConfig, hf.Glm4vProcessor, hf.Glm4vImageProcessor, hf.Glm4vVideoProcessor)


def _glm46v() -> Built:
    return _glm(hf.Glm46VConfig, hf.Glm46VProcessor, hf.Glm46VImageProcessor, hf.Glm46VVideoProcessor)


def _glm(config_class: Any, processor_class: Any, images_class: Any, videos_class: Any) -> Built:
    tokenizer = qwen_tokenizer(
        image_token="<|image|>",
        video_token="<|video|>",
        image_start_token="<|begin_of_image|>",
        image_end_token="<|end_of_image|>",
        video_start_token="<|begin_of_video|>",
        video_end_token="<|end_of_video|>",
    )
    grid = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    placeholder = "<|begin_of_video|><|video|><|end_of_video|>"
    processor = processor_class(
        images_class(**grid),
        tokenizer,
        videos_class(**grid),
        chat_template=im_template(placeholder, "<|begin_of_image|><|image|><|end_of_image|>"),
    )
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
    config = config_class(
        vision_config={
            "model_type": "glm4v_vision",
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 8,
            "out_hidden_size": 64,
            "image_size": SIDE,
        },
        text_config=text("glm4v_text", tokenizer) | {"rope_parameters": rope},
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        image_start_token_id=tokenizer.image_start_token_id,
        image_end_token_id=tokenizer.image_end_token_id,
        video_start_token_id=tokenizer.video_start_token_id,
        video_end_token_id=tokenizer.video_end_token_id,
    )
    return config, processor


def _internvl() -> Built:
    tokenizer = qwen_tokenizer(
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>"
    )
    size = {"height": SIDE, "width": SIDE}
    processor = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size=size),
        tokenizer,
        hf.InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=im_template("<video>\\n", "<IMG_CONTEXT>\\n"),
    )
    config = hf.InternVLConfig(
        vision_config=vision(image_size=[SIDE, SIDE], patch_size=[8, 8]),
        text_config=text("qwen2", tokenizer),
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=4,
    )
    return config, processor


def _smolvlm() -> Built:
    vocab, merges = train_vocabulary()
    tokenizer = hf.GPT2Tokenizer(
        vocab=vocab,
        merges=merges,
        pad_token="<|im_end|>",
        extra_special_tokens={
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    )
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>"]}, replace_extra_special_tokens=False)
    edge = {"longest_edge": SIDE}
    processor = hf.SmolVLMProcessor(
        hf.SmolVLMImageProcessor(size=edge, max_image_size=edge),
        tokenizer,
        hf.SmolVLMVideoProcessor(size=edge, max_image_size=edge, num_frames=8, fps=1),
        image_seq_len=4,
        chat_template=im_template("<video>", "<image>"),
    )
    config = hf.SmolVLMConfig(
        vision_config=vision(image_size=SIDE, patch_size=8),
        text_config=text("llama", tokenizer),
        image_token_id=tokenizer.image_token_id,
        scale_factor=2,
    )
    return config, processor


def _video_llama_3() -> Built:
    tokenizer = train_tokenizer()
    grid = {"patch_size": 8, "merge_size": 2}
    processor = hf.VideoLlama3Processor(
        hf.VideoLlama3ImageProcessor(**grid),
        tokenizer,
        hf.VideoLlama3VideoProcessor(**grid),
        chat_template=im_template("<|video_pad|>", "<|image_pad|>"),
    )
    config = hf.VideoLlama3Config(
        vision_config=vision(patch_size=8),
        text_config=text("qwen2", tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
    )
    return config, processor


def _minicpmv4_6() -> Built:
    return _minicpm(hf.MiniCPMV4_6Config, hf.MiniCPMV4_6Processor, {})


def _minicpmv4_7() -> Built:
    markers = {
        "image_start_id": "<image>",
        "image_end_id": "</image>",
        "slice_start_id": "<slice>",
        "slice_end_id": "</slice>",
    }
    return _minicpm(hf.MiniCPMV4_7Config, hf.MiniCPMV4_7Processor, markers)


def _minicpm(config_class: Any, processor_class: Any, markers: dict[str, str]) -> Built:
    tokenizer = qwen_tokenizer(
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        image_start_token="<image>",
        image_end_token="</image>",
        slice_start_token="<slice>",
        slice_end_token="</slice>",
        image_id_start_token="<image_id>",
        image_id_end_token="</image_id>",
    )
    grid = {"patch_size": 4, "scale_resolution": SIDE}
    processor = processor_class(
        hf.MiniCPMV4_6ImageProcessor(**grid),
        hf.MiniCPMV4_6VideoProcessor(**grid),
        tokenizer,
        chat_template=im_template("<|video_pad|>", "<|image_pad|>"),
    )
    config = config_class(
        vision_config=vision(image_size=SIDE, patch_size=4),
        text_config=qwen3_5_text(tokenizer),
        insert_layer_id=0,
        image_size=SIDE,
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in markers.items()},
        **({"newline_id": tokenizer.encode("\n")[0]} if markers else {}),
    )
    return config, processor


_BUILDERS: dict[str, Callable[[], Built]] = {
    "llava_next_video": _llava_next_video,
    "llava_onevision": _llava_onevision,
    "qwen3_vl_moe": _qwen3_vl_moe,
    "qwen3_5": _qwen3_5,
    "qwen3_5_moe": _qwen3_5_moe,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "video_llama_3": _video_llama_3,
    "minicpmv4_6": _minicpmv4_6,
    "minicpmv4_7": _minicpmv4_7,
    "glm4v": _glm4v,
    "glm46v": _glm46v,
}
FAMILIES = (*get_args(Architecture), *_BUILDERS)
"""Every tested family, by transformers' model type."""
