"""What several tiny families share: chat templates, sizes, tokenizers that are trained here."""

from __future__ import annotations

from typing import Any

import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from ivcp.demo.tiny_tokenizer import train_vocabulary

_IM_TEMPLATE = """
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- for item in message.content -%}
{{- 'PLACEHOLDER' if item.type == 'video' else 'IMAGE' if item.type == 'image' else item.text -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\\n' if add_generation_prompt else '' -}}
"""


def im_template(video: str, image: str) -> str:
    """ChatML, with what stands for a video and for an image."""
    return _IM_TEMPLATE.replace("PLACEHOLDER", video).replace("IMAGE", image)


VICUNA_TEMPLATE = """
{%- for message in messages -%}
{{- '' if message.role == 'system' else message.role.upper() + ': ' -}}
{%- for item in message.content -%}
{{- '<video>\\n' if item.type == 'video' else '<image>\\n' if item.type == 'image' else item.text -}}
{%- endfor -%}
{{- ' ' -}}
{%- endfor -%}
{{- 'ASSISTANT:' if add_generation_prompt else '' -}}
"""


def vision(**sizes: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        **sizes,
    }


def text(model_type: str, tokenizer: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def text_model(model_type: str, tokenizer: Any, **others: Any) -> Any:
    """A model of texts alone, with random weights: two layers, 32 numbers wide."""
    described = text(model_type, tokenizer) | {"hidden_size": 32, "intermediate_size": 64, **others}
    return hf.AutoModelForCausalLM.from_config(hf.AutoConfig.for_model(**described)).eval()


def experts(model_type: str) -> dict[str, Any]:
    return {"model_type": model_type, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}


def qwen3_5_text(tokenizer: Any) -> dict[str, Any]:
    """One layer of linear attention, one of full attention."""
    return text("qwen3_5_text", tokenizer) | {
        "head_dim": 32,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [2, 1, 1],
            "mrope_interleaved": True,
            "partial_rotary_factor": 0.25,
        },
    }


def qwen_tokenizer(**named: str) -> Any:
    vocab, merges = train_vocabulary()
    tokenizer = hf.Qwen2Tokenizer(
        vocab=vocab, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=named
    )
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>"]}, replace_extra_special_tokens=False)
    return tokenizer


def llama_tokenizer() -> Any:
    """Words with a leading ▁, bytes for the rest, and a token at the start of every text."""
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    trained.train_from_iterator(
        ["USER: ASSISTANT: What is the person doing? Name the action of the person in the video."],
        trainers.BpeTrainer(vocab_size=400, special_tokens=first, show_progress=False),
    )
    vocab = trained.get_vocab()
    merges = [
        (word[:cut], word[cut:])
        for word in sorted(vocab, key=vocab.__getitem__)
        for cut in range(1, len(word))
        if word not in first and word[:cut] in vocab and word[cut:] in vocab
    ]
    return hf.LlamaTokenizer(
        vocab=vocab,
        merges=merges,
        pad_token="<unk>",
        add_bos_token=True,
        extra_special_tokens=["<video>", "<image>"],
    )
