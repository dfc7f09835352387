"""LLaVA-OneVision in small around a language model: its configuration, processor and chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ivcp.demo.language.smollm2 import LanguageModel
from ivcp.demo.tiny_architectures import IMAGE_SIZE

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor, PreTrainedTokenizerBase

IMAGE_TOKEN, VIDEO_TOKEN = "<image>", "<video>"
PATCH_SIZE = 12
TOKENS_PER_FRAME = (IMAGE_SIZE // PATCH_SIZE // 2) ** 2
"""Of a video: the model pools 2x2 patches into one token."""

_VISION_HIDDEN_SIZE = 96
_UNTRAINED_TOKEN = "<empty_output>"
"""SmolLM2 never met it, so that it hardly ever writes it: what the rows of the new tokens start from."""
_CONTENT = "message['content']"
_PARTS = """
{%- macro text_of(content) -%}
{%- if content is string -%}
{{- content -}}
{%- else -%}
{%- for part in content -%}
{%- if part.type == 'text' -%}
{{- part.text -}}
{%- else -%}
{{- '<' + part.type + '>' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""


def build_processor(language: LanguageModel) -> LlavaOnevisionProcessor:
    """The processor for clips and images of `IMAGE_SIZE` pixels, with the language model's tokenizer in it.

    The tokenizer gets the tokens of images and videos; the chat template renders text as before.
    """
    import transformers as hf

    tokenizer = language.tokenizer
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [IMAGE_TOKEN, VIDEO_TOKEN]}, replace_extra_special_tokens=False
    )
    tokenizer.chat_template = template_with_media(tokenizer.chat_template)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[IMAGE_SIZE, IMAGE_SIZE]]),
        tokenizer,
        hf.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(IMAGE_SIZE // PATCH_SIZE) ** 2,
        vision_feature_select_strategy="full",
        chat_template=tokenizer.chat_template,
    )


def template_with_media(template: str) -> str:
    """A chat template that takes content as parts, too; texts are rendered as by `template`.

    Raises:
        ValueError: `template` does not write contents in the way that is expected.
    """
    if template.count(_CONTENT) != 1:
        raise ValueError(f"expected {_CONTENT} once in the chat template, it is: {template}")
    return _PARTS.strip() + template.replace(_CONTENT, f"text_of({_CONTENT})")


def build_model(language: LanguageModel) -> LlavaOnevisionForConditionalGeneration:
    """The language model behind a vision tower and a projector with random weights, in float32.

    `build_processor` comes first, since it adds tokens to the tokenizer: their rows are behind all others.
    """
    import transformers as hf

    tokenizer = language.tokenizer
    model = hf.LlavaOnevisionForConditionalGeneration(_config(language))
    weights = language.model.state_dict()
    table = weights["model.embed_tokens.weight"]
    untrained = table[tokenizer.convert_tokens_to_ids(_UNTRAINED_TOKEN)]
    new_rows = untrained.expand(len(tokenizer) - len(table), -1)
    weights["model.embed_tokens.weight"] = torch.cat([table, new_rows])
    prefix = "model."
    decoder = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    model.model.language_model.load_state_dict(decoder)
    model.generation_config = language.model.generation_config
    return model.eval()


def _config(language: LanguageModel) -> Any:
    import transformers as hf

    tokenizer: PreTrainedTokenizerBase = language.tokenizer
    text = language.model.config.to_dict()
    text.pop("quantization_config", None)  # of the file: the weights are floats now
    text |= {"vocab_size": len(tokenizer), "dtype": "float32"}
    vision = {
        "model_type": "siglip_vision_model",
        "vision_use_head": False,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "hidden_size": _VISION_HIDDEN_SIZE,
        "intermediate_size": 3 * _VISION_HIDDEN_SIZE,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return hf.LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        video_token_index=tokenizer.convert_tokens_to_ids(VIDEO_TOKEN),
        image_grid_pinpoints=[[IMAGE_SIZE, IMAGE_SIZE]],
        tie_word_embeddings=True,
        dtype="float32",
    )
