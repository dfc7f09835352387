"""A stage of another package, in one file: it says the answer and guesses how long the clip is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers.utils import ModelOutput

from ivcp.data.prepared.sample import Column, Sample, Tokens
from ivcp.data.prompts import render_conversation
from ivcp.models.adapters import prepare_backbone
from ivcp.models.backbone import BackboneModule, language_model_of, last_hidden_states
from ivcp.models.backbone_files import weights_below
from ivcp.models.load import load_base_model, training_dtype
from ivcp.models.processor import NO_LABEL, Processor
from ivcp.records import Message
from ivcp.settings import RunConfig
from ivcp.stages.protocol import Part, Stage

FILE = "toy.safetensors"
LENGTH = Column("length", pa.float32())


@dataclass
class ToyOutput(ModelOutput):
    loss: Tensor | None = None
    logits: Tensor | None = None
    """Lengths, (batch, 1)."""


class ToyModule(BackboneModule):
    """The length is read at the last token of the prompt; the loss is its squared error and that of the answer."""

    def __init__(self, backbone: Any) -> None:
        super().__init__(backbone)
        self.length = nn.Linear(language_model_of(backbone).config.get_text_config().hidden_size, 1)

    def forward(self, input_ids, attention_mask, num_prompt_tokens, lengths, token_labels, **vision) -> ToyOutput:
        states = last_hidden_states(self.backbone, input_ids, attention_mask, **vision)
        guesses = self.length(states[torch.arange(len(states)), num_prompt_tokens - 1])
        learned = token_labels[:, 1:] != NO_LABEL
        words = language_model_of(self.backbone).get_output_embeddings()(states[:, :-1][learned])
        answer = functional.cross_entropy(words, token_labels[:, 1:][learned]) if learned.any() else 0.0
        return ToyOutput(loss=functional.mse_loss(guesses[:, 0], lengths) + answer, logits=guesses)


@dataclass(frozen=True)
class ToyCollator:
    processor: Processor
    positions: Any

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        batch = self.processor.batch(samples, prompts_only=False)
        batch["num_prompt_tokens"] = torch.tensor([sample.num_prompt_tokens for sample in samples])
        batch["lengths"] = torch.tensor([float(sample.columns["length"]) for sample in samples])
        return self.positions(batch) if self.positions else batch


@dataclass(frozen=True)
class ToyStage(Stage):
    config: RunConfig

    title = "Length guesser"
    principle = "a number is read at the last token of the prompt"
    columns = (LENGTH,)
    reads_answers = True
    target_names = ("lengths",)
    files = (FILE,)

    @property
    def parts(self):
        return {"length": Part(self.config.train.learning_rate)}

    def prompt_of(self, messages):
        return tuple(message for message in messages if message.role != "assistant")

    def ask(self, text, *, system):
        return (*system, Message(role="user", content=f"<video>{text}"))

    def tokenize(self, processor, messages, videos):
        prompt = render_conversation(processor.processor, self.prompt_of(messages), add_generation_prompt=True)
        num_prompt_tokens = len(processor.encode(prompt, videos)[0])
        input_ids, types = processor.encode(render_conversation(processor.processor, messages), videos)
        return Tokens(input_ids, types, np.arange(len(input_ids)) >= num_prompt_tokens, num_prompt_tokens)

    def values(self, clip):
        return {"length": clip.num_frames / 20}

    def build(self, index, processor):
        model = load_base_model(
            self.config.model.required_name, settings=self.config.model, dtype=training_dtype(self.config)
        )
        return ToyModule(prepare_backbone(model, self.config.method))

    def collator(self, module, processor, *, positions, training):
        return ToyCollator(processor, positions)

    def metrics(self, predictions, targets):
        return {"mean_error": float(np.abs(predictions[:, 0] - targets).mean())}

    def save(self, directory, module, weights):
        save_file(
            {name: value.contiguous() for name, value in weights_below("length", weights).items()}, directory / FILE
        )

    def read_weights(self, directory, module):
        return {f"length.{name}": value for name, value in load_file(directory / FILE).items()}

    def restore(self, directory, backbone, processor):
        module = ToyModule(backbone)
        module.length.load_state_dict(load_file(directory / FILE))
        return module
