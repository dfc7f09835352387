"""The warm-up of a vision tower and a projector for a language model that stays as it is.

First each token of a frame becomes a word that describes the frame, in the language model's own embedding space; that
needs no pass through the language model. Then the language model is asked about clips, and tower and projector learn
to make it answer. What is described is how figures look and where their parts are: no action of any data set is named.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ivcp.data.prepared.sample import Medium, Sample
from ivcp.data.prompts import VIDEO_TAG
from ivcp.demo.draw import Frames
from ivcp.demo.figure import JOINT_NAMES
from ivcp.demo.language.architecture import PATCH_SIZE, TOKENS_PER_FRAME
from ivcp.demo.language.clips import DescribedClip, draw_described_clips
from ivcp.demo.language.descriptions import Answered
from ivcp.demo.tiny_architectures import IMAGE_SIZE, NUM_FRAMES
from ivcp.demo.warm_up import WarmUpSettings, batches, learning_rate_factor, make_optimizer
from ivcp.models.families import accepted_inputs
from ivcp.models.processor import NO_LABEL, Processor
from ivcp.records import Message
from ivcp.settings import VideoConfig
from ivcp.stages.language.conversations import conversation_tokens
from ivcp.stages.language.log_probs import token_log_probs

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

logger = logging.getLogger(__name__)

_POSES = 2 * len(JOINT_NAMES)
_POSE_WEIGHT = 4.0
_DESCRIBED = 0.4
"""The share of questions that ask for a description."""
_REPORTS = 20


@dataclass(frozen=True)
class LanguageWarmUpSettings:
    """How long and how tower and projector are warmed up."""

    num_clips: int = 4000
    word_steps: int = 3000
    """Steps in which frames become words; each is of 64 frames."""
    sentence_steps: int = 120
    """Steps in which the language model answers; each is of four clips."""
    learning_rate: float = 1.5e-3

    @property
    def words(self) -> WarmUpSettings:
        """The first part; its clips are frames."""
        return self._part(self.num_clips * NUM_FRAMES, self.word_steps, 64)

    @property
    def sentences(self) -> WarmUpSettings:
        """The second part."""
        return self._part(self.num_clips, self.sentence_steps, 4)

    def _part(self, size: int, steps: int, batch_size: int) -> WarmUpSettings:
        return WarmUpSettings(
            num_clips=size,
            num_epochs=steps * batch_size / size,
            batch_size=batch_size,
            learning_rate=self.learning_rate,
        )


@dataclass(frozen=True)
class WarmedUp:
    """What the losses were, on average over the last steps."""

    words: float
    """Mean squared distance from the words' embeddings; 1 is their own variance."""
    sentences: float
    """Of the answers' tokens, nats."""


class PoseHeads(nn.Module):
    """Throw-away heads that read joints from the states of the tower, and from the tokens that it becomes."""

    def __init__(self, vision_size: int, text_size: int) -> None:
        super().__init__()
        self.of_states = nn.Linear((IMAGE_SIZE // PATCH_SIZE) ** 2 * vision_size, _POSES)
        self.of_tokens = nn.Linear(TOKENS_PER_FRAME * text_size, _POSES)

    def forward(self, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Two estimates, (frames, 30), of (frames, patches, vision size) and (frames, tokens, text size)."""
        return self.of_states(states.flatten(1)), self.of_tokens(tokens.flatten(1))


def warm_up_language(
    model: LlavaOnevisionForConditionalGeneration,
    processor: LlavaOnevisionProcessor,
    *,
    settings: LanguageWarmUpSettings,
    seed: int,
) -> WarmedUp:
    """Trains vision tower and projector in place; the language model's weights stay what they are.

    Args:
        model: In float32.
        processor: The model's own.
        settings: How long and how.
        seed: Of clips, questions and order.
    """
    clips = draw_described_clips(0, settings.num_clips, seed=seed)
    torch.manual_seed(seed)
    model.requires_grad_(False)
    trained = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]
    trained.append(model.model.image_newline)
    for parameter in trained:
        parameter.requires_grad_(True)
    words = _WordLoss(model, processor, clips)
    sentences = _SentenceLoss(model, processor, clips, np.random.default_rng([seed, 9]))
    trained.extend(words.heads.parameters())

    def both(rows: Tensor) -> tuple[Tensor, float]:
        """The loss of the answers to questions about clips, beside which their tokens stay words."""
        frames = (rows[:, None] * NUM_FRAMES + torch.arange(NUM_FRAMES)).flatten()
        of_answers, shown = sentences(rows)
        return of_answers + words(frames)[0], shown

    losses = WarmedUp(
        words=_train(trained, settings.words, words, name="words"),
        sentences=_train(trained, settings.sentences, both, name="sentences"),
    )
    model.requires_grad_(True)
    return losses


class _WordLoss:
    """How far the tokens of frames are from the embeddings of the words that describe them, and from their poses."""

    def __init__(self, model: Any, processor: Any, clips: Sequence[DescribedClip]) -> None:
        self.model, self.video_processor = model.model, processor.video_processor
        self.frames = torch.from_numpy(np.concatenate([clip.frames for clip in clips])).permute(0, 3, 1, 2)
        self.joints = torch.from_numpy(np.concatenate([clip.joints for clip in clips])).flatten(1)
        words = [description.words for clip in clips for description in clip.descriptions]
        ids = {word: word_id(processor.tokenizer, word) for word in {word for of_frame in words for word in of_frame}}
        self.words = torch.tensor([[ids[word] for word in of_frame] for of_frame in words])
        self.table = model.get_input_embeddings().weight.detach()
        self.variance = self.table[sorted(ids.values())].var()
        self.heads = PoseHeads(model.config.vision_config.hidden_size, self.table.shape[1])

    def __call__(self, rows: Tensor) -> tuple[Tensor, float]:
        """The loss of some frames, and the part of it that is about words."""
        pixels = self.video_processor(
            list(self.frames[rows, None]), do_resize=False, do_sample_frames=False, return_tensors="pt"
        )
        encoded = self.model.get_video_features(**pixels, return_dict=True)
        tokens = encoded.pooler_output[:, :TOKENS_PER_FRAME]  # behind them is the end of the video
        of_words = functional.mse_loss(tokens, self.table[self.words[rows]]) / self.variance
        estimates = self.heads(encoded.last_hidden_state, tokens)
        of_poses = sum(functional.mse_loss(estimate, self.joints[rows]) for estimate in estimates)
        return of_words + _POSE_WEIGHT * of_poses, of_words.item()


class _SentenceLoss:
    """How improbable the language model finds the right answers to questions about clips."""

    def __init__(self, model: Any, processor: Any, clips: Sequence[DescribedClip], rng: np.random.Generator) -> None:
        self.model, self.clips, self.rng = model, clips, rng
        self.processor = Processor(processor, video=VideoConfig())

    def __call__(self, rows: Tensor) -> tuple[Tensor, float]:
        """The loss of some clips, twice."""
        step = int(self.rng.integers(1, 3))
        samples = [self._sample(self.clips[row].every(step)) for row in rows]
        batch = self.processor.batch(samples, prompts_only=False)
        labels = batch.pop("token_labels")
        states = self.model.base_model(**accepted_inputs(self.model.base_model, batch), use_cache=False)
        found = token_log_probs(states.last_hidden_state, labels, self.model.lm_head)
        loss = -found.sum() / (labels != NO_LABEL).sum()
        return loss, loss.item()

    def _sample(self, clip: DescribedClip) -> Sample:
        whole, *others = clip.questions
        answered = whole if self.rng.random() < _DESCRIBED else others[self.rng.integers(len(others))]
        return sample_of(self.processor, clip.frames, answered)


def sample_of(processor: Processor, frames: Frames, answered: Answered) -> Sample:
    """A clip with a question and its answer, as the model learns from it."""
    messages = (
        Message(role="user", content=f"{VIDEO_TAG}{answered.question}"),
        Message(role="assistant", content=answered.answer),
    )
    medium = Medium(frames, frame_indices=tuple(range(len(frames))), total_frames=len(frames))
    tokens = conversation_tokens(processor, messages, [medium])
    return Sample(**vars(tokens), sample_id="drawn", source="drawn", media=(medium,))


def word_id(tokenizer: Any, word: str) -> int:
    """The id of a word within a text.

    Raises:
        ValueError: the tokenizer splits it.
    """
    ids: list[int] = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(f"expected a word that is one token, {word!r} is {len(ids)} to this tokenizer")
    return ids[0]


def _train(
    parameters: list[nn.Parameter],
    settings: WarmUpSettings,
    loss_of: Callable[[Tensor], tuple[Tensor, float]],
    *,
    name: str,
) -> float:
    """Trains on the loss of rows; returns its second number, on average over the last steps."""
    optimizer = make_optimizer(parameters, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(learning_rate_factor, settings=settings))
    recent: deque[float] = deque(maxlen=25)
    started = time.monotonic()
    for step, rows in enumerate(batches(settings), start=1):
        loss, shown = loss_of(rows)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        recent.append(shown)
        if step % max(1, settings.num_steps // _REPORTS) == 0 or step == settings.num_steps:
            mean, seconds = sum(recent) / len(recent), time.monotonic() - started
            logger.info("warm-up, %s: step %d of %d, loss %.3f, %.0f s", name, step, settings.num_steps, mean, seconds)
    return sum(recent) / len(recent)
