"""The ways of training that `train_step.py` compares, from the users' to this project's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from shapes import read_clip
from torch import Tensor, nn
from transformers.activations import QuickGELUActivation

from ivcp.models.acceleration import LoraUp
from ivcp.models.backbone import language_model_of
from ivcp.models.vision.layers import PatchConv3d, QuickGELU
from ivcp.stages.action_cls.collator import ActionCollator

ANSWER = "The person in the video stands up from the chair."


@dataclass(frozen=True)
class Way:
    """One way of training: what is still done as users do it."""

    full_model: bool = False
    keeps_answer: bool = False
    decodes: bool = False
    faster_layers: bool = True
    cached: bool = False
    compiled: bool = False
    recomputes: bool = True
    """Gradient checkpointing."""
    trains_tower: bool = False


USERS = {"full_model": True, "keeps_answer": True, "decodes": True, "faster_layers": False}


WAYS = {
    "users' way": Way(**USERS),
    "+ no lm_head, no list of hidden states": Way(keeps_answer=True, decodes=True, faster_layers=False),
    "+ nothing behind the token": Way(decodes=True, faster_layers=False),
    "+ prepared clips": Way(faster_layers=False),
    "+ faster layers": Way(),
    "+ cached vision features": Way(cached=True),
    "+ compiled": Way(cached=True, compiled=True),
    "+ activations kept": Way(cached=True, compiled=True, recomputes=False),
    "users' way, tower trains": Way(**USERS, trains_tower=True),
    "+ prepared clips, cut, no lm_head": Way(faster_layers=False, trains_tower=True),
    "+ faster layers, tower trains": Way(trains_tower=True),
    "+ compiled, tower trains": Way(compiled=True, trains_tower=True),
    "+ activations kept, tower trains": Way(compiled=True, recomputes=False, trains_tower=True),
}


class Users:
    """The collator and the step of the users' way, or of one between it and this project's."""

    def __init__(self, way: Way, trainer: Any) -> None:
        self.way, self.classifier, self.processor = way, trainer.model, trainer.sample_processor
        # The trainer's batches have the positions that the users' model finds in its forward pass.
        self.batch = trainer.train_collate.collate if way.faster_layers else ActionCollator(self.processor)
        tokenizer = self.processor.processor.tokenizer
        self.answer = torch.tensor(tokenizer.encode(ANSWER, add_special_tokens=False))

    def collate(self, clips: Sequence[Any]) -> dict[str, Any]:
        if self.way.decodes:
            clips = [read_clip(path, number, self.processor) for path, number in clips]
        batch = self.batch(clips)
        if self.way.keeps_answer:
            answers = self.answer.expand(len(clips), -1)
            batch["input_ids"] = torch.cat([batch["input_ids"], answers], dim=1)
            batch["attention_mask"] = torch.cat([batch["attention_mask"], torch.ones_like(answers)], dim=1)
            batch["mm_token_type_ids"] = torch.cat([batch["mm_token_type_ids"], torch.zeros_like(answers)], dim=1)
        return batch

    def loss(self, batch: dict[str, Any]) -> Tensor:
        if not self.way.full_model:
            return self.classifier(**batch).loss
        labels = batch.pop("labels")
        output = language_model_of(self.classifier.backbone)(**batch, output_hidden_states=True, use_cache=False)
        positions = (batch["input_ids"] == self.classifier.action_token_id).int().argmax(dim=1)
        states = output.hidden_states[-1][torch.arange(len(positions), device=positions.device), positions]
        loss = nn.functional.cross_entropy(self.classifier.decoder(states).float(), labels)
        return loss + 0 * output.logits[:, -1, 0].float().mean()  # the logits live until the backward pass


def restore_layers(model: Any, attention: str) -> None:
    """Gives a model the layers and the attention that transformers and peft give it."""
    if attention == "auto":
        model.get_encoder(modality="video").config._attn_implementation = "sdpa"
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, PatchConv3d):
                layer.__class__ = nn.Conv3d
            elif isinstance(layer, LoraUp):
                layer.__class__ = nn.Linear
            elif isinstance(layer, QuickGELU):
                setattr(parent, name, QuickGELUActivation())
