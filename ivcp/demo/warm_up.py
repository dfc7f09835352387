"""The generic warm-up of a tiny base model: it learns how a figure moves, from random motions.

Random weights give LoRA nothing to adapt. Afterwards the vision tower sees limbs, and the language model
carries their motion to the last token, which is what a classifier of any actions needs. The tasks are to
predict the poses, and to recognise which of some random motions a clip shows, forwards or backwards. No action of any
data set is among them.
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

from ivcp.demo.figure import JOINT_NAMES
from ivcp.demo.random_motion import RandomClip, draw_random_clip, sample_motions
from ivcp.demo.tiny_architectures import (
    IMAGE_SIZE,
    MERGE_SIZE,
    NUM_FRAMES,
    PATCH_SIZE,
    TEMPORAL_PATCH_SIZE,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

logger = logging.getLogger(__name__)

_QUESTIONS = (
    "What is the person doing?",
    "What happens in this clip?",
    "Describe the action in the video.",
    "Look at the person.",
)
_PER_FRAME = 2 * len(JOINT_NAMES)
_CHUNK = 50


@dataclass(frozen=True)
class WarmUpSettings:
    """How long and how the base model is warmed up."""

    num_motions: int = 12
    num_clips: int = 4000
    num_epochs: float = 4.0
    batch_size: int = 32
    learning_rate: float = 1.5e-3
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
    motions: Tensor
    """Numbers of the motions, shape (clips,)."""


class Heads(nn.Module):
    """Throw-away heads that read the warm-up's tasks from hidden states."""

    def __init__(self, hidden_size: int, num_motions: int) -> None:
        super().__init__()
        per_slice, tokens = TEMPORAL_PATCH_SIZE * _PER_FRAME, (IMAGE_SIZE // (PATCH_SIZE * MERGE_SIZE)) ** 2
        self.motion = nn.Linear(hidden_size, 2 * num_motions)
        self.clip = nn.Linear(hidden_size, NUM_FRAMES * _PER_FRAME)
        self.mean_of_slice = nn.Linear(hidden_size, per_slice)
        self.tokens_of_slice = nn.Linear(tokens * hidden_size, per_slice)

    def forward(self, last_state: Tensor, video_states: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores of the motions, and estimates of the poses: from the last token, the means, the tokens.

        The further down that list, the sooner it is learnt; each helps the one before it off its plateau.

        Args:
            last_state: State of the last token, shape (clips, hidden size).
            video_states: States of the video tokens, shape (clips, video tokens, hidden size).

        Returns:
            Shapes (clips, 2 * motions), and (clips, frames, 30) for each estimate.
        """
        clips, _, hidden_size = video_states.shape
        slices = video_states.view(clips, NUM_FRAMES // TEMPORAL_PATCH_SIZE, -1, hidden_size)
        estimates = [
            self.clip(last_state),
            self.mean_of_slice(slices.mean(dim=2)),
            self.tokens_of_slice(slices.flatten(2)),
        ]
        return self.motion(last_state), [estimate.view(clips, NUM_FRAMES, -1) for estimate in estimates]


def warm_up_model(
    model: "PreTrainedModel",
    processor: "ProcessorMixin",
    *,
    settings: WarmUpSettings,
    seed: int,
    workers: int = 2,
) -> float:
    """Train a model in place on random motions; returns the last loss.

    The layout is that of classification: the chat template, the video, a question, and one more token, whose
    final hidden state is read. That token is drawn at random, since ``<ACTION>`` is not known yet.

    Args:
        model: Has random weights and gets useful ones.
        processor: The model's own.
        settings: How long and how.
        seed: Of motions, clips and order.
        workers: Processes that draw the clips.
    """
    clips = _draw_clips(settings, seed, workers)
    prompts = [_Prompt.build(processor, question) for question in _QUESTIONS]
    torch.manual_seed(seed)
    heads = Heads(model.config.get_text_config().hidden_size, settings.num_motions)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = make_optimizer(parameters, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(learning_rate_factor, settings=settings))
    model.train()
    loss, started = torch.tensor(0.0), time.monotonic()
    for step, rows in enumerate(batches(settings), start=1):
        inputs = prompts[step % len(prompts)].inputs(processor, clips.frames[rows])
        loss = _loss(model, heads, inputs, clips.joints[rows], clips.motions[rows])
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 25 == 0 or step == settings.num_steps:
            _report(step, settings, loss.item(), time.monotonic() - started)
    model.eval()
    return loss.item()


def _report(step: int, settings: WarmUpSettings, loss: float, seconds: float) -> None:
    logger.info("warm-up: step %d of %d, loss %.3f, %.0f s", step, settings.num_steps, loss, seconds)


@dataclass(frozen=True)
class _Prompt:
    """A tokenised question about a clip, without its last token."""

    input_ids: Tensor
    mm_token_type_ids: Tensor
    num_text_tokens: int
    """Ids below are text; special tokens follow."""

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
        last = torch.randint(self.num_text_tokens, (len(frames), 1))
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


def _loss(model: Any, heads: Heads, inputs: dict[str, Tensor], joints: Tensor, motions: Tensor) -> Tensor:
    states = model.base_model(**inputs, use_cache=False).last_hidden_state
    is_video = inputs["mm_token_type_ids"][0] == 2
    scores, estimates = heads(states[:, -1], states[:, is_video])
    pose_errors = torch.stack([_pose_error(estimate, joints) for estimate in estimates])
    return pose_errors.sum() + functional.cross_entropy(scores, motions)


def _pose_error(estimate: Tensor, joints: Tensor) -> Tensor:
    change = functional.mse_loss(estimate.diff(dim=1), joints.diff(dim=1))
    return 4.0 * (functional.mse_loss(estimate, joints) + change)


def batches(settings: WarmUpSettings) -> Iterator[Tensor]:
    """Which clips each step learns from, shape (batch size,); all of them once, then all again."""
    order = torch.empty(0, dtype=torch.long)
    for _ in range(settings.num_steps):
        while len(order) < settings.batch_size:
            order = torch.cat([order, torch.randperm(settings.num_clips)])
        yield order[: settings.batch_size]
        order = order[settings.batch_size :]


def make_optimizer(parameters: list[nn.Parameter], settings: WarmUpSettings) -> torch.optim.Optimizer:
    """AdamW, without weight decay on norms and biases."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.99))


def learning_rate_factor(step: int, settings: WarmUpSettings) -> float:
    """What the learning rate is multiplied by: a rise, then half a cosine down to 0."""
    warmup_steps = max(1.0, settings.warmup_ratio * settings.num_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1.0, settings.num_steps - warmup_steps)
    return float(0.5 * (1 + np.cos(np.pi * min(1.0, progress))))


def _draw_clips(settings: WarmUpSettings, seed: int, workers: int) -> _Clips:
    draw = partial(_draw_chunk, seed=seed, num_motions=settings.num_motions)
    starts = range(0, settings.num_clips, _CHUNK)
    if workers == 1:
        chunks = [*map(draw, starts)]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            chunks = [*pool.map(draw, starts)]
    clips = [clip for chunk in chunks for clip in chunk][: settings.num_clips]
    frames = torch.from_numpy(np.stack([clip.frames for clip in clips]))
    joints = torch.from_numpy(np.stack([clip.joints for clip in clips]))
    motions = torch.tensor([clip.motion for clip in clips])
    return _Clips(frames.permute(0, 1, 4, 2, 3), joints.flatten(2), motions)


def _draw_chunk(start: int, *, seed: int, num_motions: int) -> list[RandomClip]:
    motions = sample_motions(num_motions, np.random.default_rng([seed, 6]))
    rngs = (np.random.default_rng([seed, 5, index]) for index in range(start, start + _CHUNK))
    return [draw_random_clip(motions, rng, num_frames=NUM_FRAMES, size=IMAGE_SIZE) for rng in rngs]
