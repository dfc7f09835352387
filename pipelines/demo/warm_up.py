"""The generic warm-up of a tiny base model: it learns to tell how a figure moves, from clips without labels.

Random weights give LoRA nothing to adapt. After this pose regression the vision tower sees limbs and the language
model carries their motion to the last token, which is what a classifier of any actions needs.
"""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.demo.figure import JOINT_NAMES
from pipelines.demo.random_motion import RandomClip, draw_random_clip
from pipelines.demo.tiny_architectures import IMAGE_SIZE, MERGE_SIZE, NUM_FRAMES, PATCH_SIZE, TEMPORAL_PATCH_SIZE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

logger = logging.getLogger(__name__)

_QUESTIONS = (
    "What is the person doing?",
    "What happens in this clip?",
    "Describe the action in the video.",
    "Look at the person.",
)
_CHUNK = 50


@dataclass(frozen=True)
class WarmUpSettings:
    """How long and how the base model is warmed up."""

    num_clips: int = 4000
    num_epochs: float = 3.0
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_ratio: float = 0.1
    max_grad_norm: float = 1.0

    @property
    def num_steps(self) -> int:
        """Optimizer steps in all."""
        return max(1, round(self.num_clips * self.num_epochs / self.batch_size))


@dataclass(frozen=True)
class _Clips:
    frames: Tensor
    """uint8, shape (clips, frames, 3, size, size)."""
    joints: Tensor
    """float32, shape (clips, frames, 30)."""


class PoseHeads(nn.Module):
    """Throw-away heads that read poses from hidden states."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        per_frame = 2 * len(JOINT_NAMES)
        self.clip = nn.Linear(hidden_size, NUM_FRAMES * per_frame)
        self.slice = nn.Linear(hidden_size, TEMPORAL_PATCH_SIZE * per_frame)

    def forward(self, last_state: Tensor, video_states: Tensor) -> tuple[Tensor, Tensor]:
        """Two estimates of the poses, each of shape (clips, frames, 30).

        Args:
            last_state: State of the last token, shape (clips, hidden size). It has to tell the whole clip.
            video_states: States of the video tokens, shape (clips, video tokens, hidden size), two frames each.
        """
        clips, num_slices = len(last_state), NUM_FRAMES // TEMPORAL_PATCH_SIZE
        slices = video_states.unflatten(1, (num_slices, -1)).mean(dim=2)
        return self.clip(last_state).view(clips, NUM_FRAMES, -1), self.slice(slices).view(clips, NUM_FRAMES, -1)


def warm_up(
    model: "PreTrainedModel",
    processor: "ProcessorMixin",
    *,
    settings: WarmUpSettings,
    seed: int,
    workers: int = 2,
) -> float:
    """Train a model in place to tell poses from clips of random motion; returns the last loss.

    The layout is that of classification: the chat template, the video, a question, and one more token, whose
    final hidden state is read. That token is drawn at random, since ``<ACTION>`` is not known yet.
    """
    clips = _draw_clips(settings.num_clips, seed, workers)
    prompts = [_Prompt.build(processor, question) for question in _QUESTIONS]
    torch.manual_seed(seed)
    heads = PoseHeads(model.config.get_text_config().hidden_size)
    optimizer = _optimizer([model, heads], settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_learning_rate_factor, settings=settings))
    model.train()
    loss, started = torch.tensor(0.0), time.monotonic()
    for step, rows in enumerate(_batches(settings)):
        inputs = prompts[step % len(prompts)].inputs(processor, clips.frames[rows])
        loss = _loss(model, heads, inputs, clips.joints[rows])
        loss.backward()
        nn.utils.clip_grad_norm_([*model.parameters(), *heads.parameters()], settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % 25 == 0:
            seconds = time.monotonic() - started
            logger.info("warm-up: step %d of %d, loss %.3f, %.0f s", step + 1, settings.num_steps, loss, seconds)
    model.eval()
    return loss.item()


@dataclass(frozen=True)
class _Prompt:
    """A tokenised question about a clip, without its last token."""

    input_ids: Tensor
    mm_token_type_ids: Tensor
    vocab_size: int

    @classmethod
    def build(cls, processor: Any, question: str) -> "_Prompt":
        from transformers.video_utils import VideoMetadata

        content = [{"type": "video"}, {"type": "text", "text": question}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
        encoded = processor(
            text=[text[: text.index(question) + len(question)]],
            videos=[np.zeros((NUM_FRAMES, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)],
            video_metadata=[VideoMetadata(total_num_frames=NUM_FRAMES, fps=4.0, frames_indices=[*range(NUM_FRAMES)])],
            do_resize=False,
            do_sample_frames=False,
            return_tensors="pt",
        )
        first_special = min(processor.tokenizer.all_special_ids)
        return cls(encoded["input_ids"], encoded["mm_token_type_ids"], first_special)

    def inputs(self, processor: Any, frames: Tensor) -> dict[str, Tensor]:
        """The model's inputs for clips of shape (clips, frames, 3, size, size)."""
        last = torch.randint(self.vocab_size, (len(frames), 1))
        types = self.mm_token_type_ids.expand(len(frames), -1)
        input_ids = torch.cat([self.input_ids.expand(len(frames), -1), last], dim=1)
        vision = processor.video_processor(list(frames), do_resize=False, do_sample_frames=False, return_tensors="pt")
        return {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "mm_token_type_ids": torch.cat([types, torch.zeros_like(last)], dim=1),
            "pixel_values_videos": vision["pixel_values_videos"],
            "video_grid_thw": vision["video_grid_thw"],
        }


def _loss(model: Any, heads: PoseHeads, inputs: dict[str, Tensor], joints: Tensor) -> Tensor:
    """Error of the positions and of their changes, from the last token and from the video tokens."""
    states = model.base_model(**inputs, use_cache=False).last_hidden_state
    is_video = inputs["mm_token_type_ids"][0] == 2
    of_clip, of_slices = heads(states[:, -1], states[:, is_video])
    return _pose_error(of_clip, joints) + 0.5 * _pose_error(of_slices, joints)


def _pose_error(estimate: Tensor, joints: Tensor) -> Tensor:
    change = functional.mse_loss(estimate.diff(dim=1), joints.diff(dim=1))
    return 10.0 * (functional.mse_loss(estimate, joints) + change)


def _batches(settings: WarmUpSettings) -> Iterator[Tensor]:
    order = torch.empty(0, dtype=torch.long)
    for _ in range(settings.num_steps):
        while len(order) < settings.batch_size:
            order = torch.cat([order, torch.randperm(settings.num_clips)])
        yield order[: settings.batch_size]
        order = order[settings.batch_size :]


def _optimizer(modules: list[Any], settings: WarmUpSettings) -> torch.optim.Optimizer:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.99))


def _learning_rate_factor(step: int, settings: WarmUpSettings) -> float:
    warmup_steps = max(1.0, settings.warmup_ratio * settings.num_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1.0, settings.num_steps - warmup_steps)
    return float(0.5 * (1 + np.cos(np.pi * min(1.0, progress))))


def _draw_clips(num_clips: int, seed: int, workers: int) -> _Clips:
    draw = partial(_draw_chunk, seed=seed)
    starts = range(0, num_clips, _CHUNK)
    if workers == 1:
        chunks = [*map(draw, starts)]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            chunks = [*pool.map(draw, starts)]
    clips = [clip for chunk in chunks for clip in chunk][:num_clips]
    frames = torch.from_numpy(np.stack([clip.frames for clip in clips]))
    joints = torch.from_numpy(np.stack([clip.joints for clip in clips]))
    return _Clips(frames.permute(0, 1, 4, 2, 3), joints.flatten(2))


def _draw_chunk(start: int, *, seed: int) -> list[RandomClip]:
    rngs = (np.random.default_rng([seed, 5, index]) for index in range(start, start + _CHUNK))
    return [draw_random_clip(rng, num_frames=NUM_FRAMES, size=IMAGE_SIZE) for rng in rngs]
