"""A tiny text model and its trained twin, as TRL's trainers take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from tests.tiny_family_parts import qwen_tokenizer

PAIRS = [
    {"prompt": "What is the person doing?", "chosen": " The person waves.", "rejected": " A dog."},
    {"prompt": "Who is it?", "chosen": " A person.", "rejected": " The person waves with the left hand, I think."},
    {"prompt": "And then?", "chosen": " They sit down on a chair.", "rejected": " Nothing."},
    {"prompt": "How many people are there in the video?", "chosen": " Two people.", "rejected": " Three people."},
]


def tokenizer() -> Any:
    """One that was trained here."""
    return qwen_tokenizer()


def text_model(seed: int) -> Any:
    """A Qwen2 of two layers with random weights."""
    torch.manual_seed(seed)
    words = tokenizer()
    config = transformers.Qwen2Config(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=words.pad_token_id,
        eos_token_id=words.eos_token_id,
    )
    return transformers.Qwen2ForCausalLM(config).eval()


def moved(model: Any, seed: int = 1) -> Any:
    """Changes a model's weights a little, so that it differs from its reference."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


def trainer_arguments(folder: Path) -> dict[str, Any]:
    """What every trainer's configuration is given here."""
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": len(PAIRS),
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "remove_unused_columns": False,
    }
