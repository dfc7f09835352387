"""A tiny text model and its trained twin, as TRL's trainers take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad

from ivcp.models.processor import NO_LABEL
from tests import tiny_family_parts

PAIRS = [
    {"prompt": "What is the person doing?", "chosen": " The person waves.", "rejected": " A dog."},
    {"prompt": "Who is it?", "chosen": " A person.", "rejected": " The person waves with the left hand, I think."},
    {"prompt": "And then?", "chosen": " They sit down on a chair.", "rejected": " Nothing."},
    {"prompt": "How many people are there in the video?", "chosen": " Two people.", "rejected": " Three people."},
]


def tokenizer() -> Any:
    """One that was trained here."""
    return tiny_family_parts.qwen_tokenizer()


def text_model(seed: int) -> Any:
    """A Qwen2 of two layers with random weights."""
    torch.manual_seed(seed)
    return tiny_family_parts.text_model("qwen2", tokenizer())


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


def older_batch(trainer: Any) -> tuple[dict[str, Any], tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A batch of TRL's older trainers; ids and mask of its chosen answers, then of its rejected ones; their labels."""
    batch = next(iter(trainer.get_train_dataloader()))
    width = max(batch[f"{kind}_input_ids"].shape[1] for kind in ("chosen", "rejected"))

    def both(name: str, filler: int) -> torch.Tensor:
        parts = [batch[f"{kind}_{name}"] for kind in ("chosen", "rejected")]
        return torch.cat([pad(part, (0, width - part.shape[1]), value=filler) for part in parts])

    given = both("input_ids", trainer.processing_class.pad_token_id), both("attention_mask", 0)
    return batch, given, both("labels", NO_LABEL)
