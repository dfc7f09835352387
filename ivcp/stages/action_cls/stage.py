"""The stage `action_cls`: a hidden state at the action token, through an ActionDecoder, to class logits.

The module is light, for validation and preparation ask the stage as well: what needs torch is imported in the methods
that use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ivcp.data.prepared.sample import Column, Tokens
from ivcp.data.prompts import VIDEO_TAG, check_prompt, cut_behind_action, render_answer, render_prompt
from ivcp.records import LABELS_FILE, Clip, Labels, Message, PreparedIndex
from ivcp.records.problem_types import TargetKind
from ivcp.settings import ActionClsConfig, ConfigError, RunConfig
from ivcp.stages.action_cls.targets import (
    TARGET_SETTINGS,
    check_no_idle_settings,
    column_of,
    kind_of,
    metric_names,
    values_of,
)
from ivcp.stages.protocol import ClassifierHead, Collate, Part, Stage, TrainingInputs, TrainingOutcome

if TYPE_CHECKING:
    from torch import Tensor

    from ivcp.models.backbone import BackboneModule
    from ivcp.models.positions import RopePositions
    from ivcp.models.processor import Processor
    from ivcp.models.sampled import SampledVideo
    from ivcp.stages.action_cls.module import ActionClassifier


@dataclass(frozen=True)
class ActionClassification(Stage):
    """The stage, with the settings of a run: see `ivcp.stages.protocol.Stage`."""

    config: RunConfig

    @property
    def title(self) -> str:
        """What a model of this stage is."""
        return "Action classifier"

    @property
    def principle(self) -> str:
        """How it works."""
        return (
            f"the language model's last hidden state at `{self.action_token}` goes through a "
            f"{self.config.action_cls.action_decoder_type} ActionDecoder to class logits"
        )

    @property
    def data_settings(self) -> tuple[str, ...]:
        """The token, the number of classes, whether answers are read, and what a label is where that is not a class."""
        usual = ("action_token", "num_action_classes", "action_cls_token_loss_weight")
        return (*usual, *TARGET_SETTINGS) if self.config.action_cls.has_other_targets else usual

    @property
    def own_settings(self) -> tuple[str, ...]:
        """Those of its section."""
        return tuple(ActionClsConfig.model_fields)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The class, or what stands in its place."""
        return (column_of(self.kind),)

    @property
    def kind(self) -> TargetKind:
        """What is told of a clip."""
        return kind_of(self.config.action_cls)

    @property
    def action_token(self) -> str:
        """The token whose state is classified."""
        return self.config.action_cls.action_token

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """The action token."""
        return (self.action_token,)

    @property
    def smallest_prompt(self) -> tuple[Message, ...]:
        """A video and the action token."""
        return (Message(role="user", content=f"{VIDEO_TAG}{self.action_token}"),)

    @property
    def reads_answers(self) -> bool:
        """Where the loss on the answer has a weight: else nothing behind the action token is computed."""
        return self.config.action_cls.action_cls_token_loss_weight > 0

    def prompt_of(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The conversation up to the action token."""
        return cut_behind_action(messages, action_token=self.action_token)

    def ask(self, text: str, *, system: Sequence[Message]) -> tuple[Message, ...]:
        """`text` with `<video>` before it and the action token behind it, where it lacks them.

        Raises:
            PromptError: it has one of them twice, or in the wrong order.
        """
        text = text if VIDEO_TAG in text else f"{VIDEO_TAG}{text}"
        text = text if self.action_token in text else f"{text} {self.action_token}"
        messages = (*system, Message(role="user", content=text))
        check_prompt(messages, action_token=self.action_token)
        return messages

    def tokenize(self, processor: Processor, messages: Sequence[Message], videos: Sequence[SampledVideo]) -> Tokens:
        """The prompt up to the action token, and what follows it: the loss is on the answer."""
        text = render_prompt(processor.processor, messages, action_token=self.action_token)
        input_ids, types = processor.encode(text, videos)
        header, answer = render_answer(processor.processor, messages, action_token=self.action_token)
        behind = [processor.encode_behind(self.action_token, part) if answer else [] for part in (header, answer)]
        lengths = len(input_ids) + len(behind[0]), len(behind[1])
        return Tokens(
            input_ids=np.concatenate([input_ids, np.array([*behind[0], *behind[1]], dtype=np.int64)]),
            mm_token_type_ids=np.concatenate([types, np.zeros(sum(lengths) - len(input_ids), dtype=np.int64)]),
            loss_mask=np.repeat([False, True], lengths),
            num_prompt_tokens=len(input_ids),
        )

    def values(self, clip: Clip) -> dict[str, Any]:
        """The class, or what stands in its place."""
        return values_of(self.kind, clip)

    def check_base(self, base: Any) -> None:
        """Checks that it reads videos, and that a transformer decoder's width, which may be its own, is a multiple of
        its heads.

        Raises:
            UnsupportedModelError: it does not.
            ConfigError: the width is not.
        """
        from ivcp.models.families import check_reads_videos
        from ivcp.stages.action_cls.decoder import DecoderShape

        check_reads_videos(base, self.config.model.required_name)
        try:
            DecoderShape.from_settings(
                self.config.action_cls, hidden_size=base.get_text_config().hidden_size, num_classes=2
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def check_settings(self) -> None:
        """Checks that clips are classified by what is seen of them, and that no setting is of another kind of label.

        Raises:
            ConfigError: they are to be heard too, or a setting would mean nothing.
        """
        check_no_idle_settings(self.config)
        if self.config.video.use_audio_in_video:
            raise ConfigError(
                "use_audio_in_video: stage action_cls classifies a clip by its frames alone: set it to false, or train "
                "a model to write (stage: sft)"
            )

    def check_data(self, index: PreparedIndex) -> None:
        """Checks that there are answers, where the loss is on them too.

        Raises:
            ConfigError: there are none.
        """
        if self.reads_answers and not index.num_answers:
            raise ConfigError(
                f"action_cls_token_loss_weight = {self.config.action_cls.action_cls_token_loss_weight}: no "
                f"conversation has an answer behind {self.action_token}; set it to 0, or add the assistant's turns"
            )

    @property
    def trains_backbone(self) -> bool:
        """Where the token's row trains, which lies in front of the backbone."""
        return self.config.action_cls.action_token_lr_scale > 0

    @property
    def changes_media(self) -> str | None:
        """Mixup mixes the frames of two clips."""
        alpha = self.config.loss.mixup_alpha
        return f"mixup_alpha = {alpha} mixes the frames of training clips" if alpha > 0 else None

    @property
    def sees_samples_once(self) -> bool:
        """A head sweep computes the state of each clip once."""
        return self.config.action_cls.head_sweep

    @property
    def parts(self) -> Mapping[str, Part]:
        """The decoder, and the token's row.

        The row's learning rate is scaled here: scaling its gradient instead would have no effect under Adam.
        """
        train = self.config.train
        row_rate = train.learning_rate * self.config.action_cls.action_token_lr_scale
        return {
            "action_decoder": Part(train.action_decoder_learning_rate or train.learning_rate),
            "action_token_row": Part(row_rate, decays=False),
        }

    def part_of(self, name: str) -> str:
        """The decoder, or the token's row."""
        return "action_decoder" if name.startswith("decoder.") else "action_token_row"

    def build(self, index: PreparedIndex, processor: Processor) -> ActionClassifier:
        """The base model with its adapter, a new or earlier decoder, and the token's row.

        Raises:
            FileNotFoundError: the base model does not exist.
            ModelFilesError: `action_decoder_path` does not fit the labels or the settings.
            UnsupportedMethodError: the model cannot be trained as asked.
        """
        from ivcp.stages.action_cls.build import build_classifier

        return build_classifier(self.config, index, processor)

    def collator(
        self, module: BackboneModule, processor: Processor, *, positions: RopePositions | None, training: bool
    ) -> Collate:
        """Prompts with their classes; in training with answers and mixed in pairs, where that was asked for."""
        from ivcp.stages.action_cls.collator import ActionCollator, Mixup

        num_classes = self.labels(module).num_classes
        mixup = Mixup(self.config.loss.mixup_alpha, num_classes, self.config.train.seed)
        return ActionCollator(
            processor,
            prompts_only=not (training and self.reads_answers),
            positions=positions,
            mixup=mixup if training and self.changes_media else None,
            kind=self.kind,
            num_classes=num_classes,
            num_heads=len(self.labels(module).heads),
        )

    @property
    def target_names(self) -> tuple[str, ...]:
        """The classes."""
        return ("labels",)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The accuracy, or what stands in its place."""
        return metric_names(self.config.action_cls)

    @property
    def compared_by(self) -> tuple[str, ...]:
        """Of a number, by its errors, of which less is better."""
        return ("mae", "rmse") if self.kind == "value" else self.metric_names

    def metrics(self, predictions: Any, targets: Any) -> dict[str, float]:
        """Top-1 accuracy of logits, (clips, classes), against labels, (clips,)."""
        return {"top1_accuracy": float((predictions.argmax(axis=-1) == targets).mean())}

    def metrics_of(self, module: BackboneModule) -> Callable[[Any, Any], dict[str, float]]:
        """Where a label is not one class, the labels say how its figures are counted."""
        if self.kind == "class":
            return self.metrics
        from ivcp.inference.target_scores import scores_of

        return partial(scores_of, labels=self.labels(module))

    def train(self, inputs: TrainingInputs) -> TrainingOutcome | None:
        """The head sweep, where that was asked for.

        Raises:
            ConfigError: there is no validation split.
        """
        from ivcp.stages.action_cls.head_sweep import sweep_heads

        return sweep_heads(self.config, inputs) if self.config.action_cls.head_sweep else None

    @property
    def files(self) -> tuple[str, ...]:
        """Decoder, token row and labels."""
        from ivcp.stages.action_cls.files import FILES

        return FILES

    def save(self, directory: Path, module: BackboneModule, weights: Mapping[str, Tensor]) -> None:
        """Writes decoder, token row and labels."""
        from ivcp.stages.action_cls.files import save_own_files

        save_own_files(directory, self._classifier(module), weights)

    def read_weights(self, directory: Path, module: BackboneModule) -> dict[str, Tensor]:
        """The decoder's and the row's weights.

        Raises:
            ModelFilesError: the decoder was trained for other labels.
        """
        from ivcp.stages.action_cls.files import read_own_weights

        return read_own_weights(directory, labels=self.labels(module))

    def restore(self, directory: Path, backbone: Any, processor: Processor) -> ActionClassifier:
        """The classifier of a directory.

        Raises:
            ModelFilesError: the token's row does not fit the backbone.
        """
        from ivcp.stages.action_cls.build import restore_classifier

        labels = Labels.read(directory / LABELS_FILE)
        return restore_classifier(directory, backbone, labels=labels, token_id=processor.token_id(self.action_token))

    def fold(self, model: Any, module: BackboneModule, processor: Processor) -> None:
        """Makes the token's row a row of the embedding, so that `from_pretrained` reads a model that knows it."""
        token_id = processor.token_id(self.action_token)
        if token_id >= model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(token_id + 1, mean_resizing=False)
        model.get_input_embeddings().weight.data[token_id] = self._classifier(module).action_token_row.data

    def labels(self, module: BackboneModule) -> Labels:
        """The classes of the decoder."""
        return self._classifier(module).labels

    def classifier_head(self, module: BackboneModule) -> ClassifierHead:
        """The token and the decoder; its weights where it is one linear layer."""
        classifier = self._classifier(module)
        decoder: Any = classifier.decoder
        return ClassifierHead(
            token_id=classifier.action_token_id,
            shape=decoder.shape.model_dump(mode="json"),
            linear=decoder.linear,
            reads_vision_states=decoder.reads_vision_states,
            logits=decoder,
        )

    def _classifier(self, module: BackboneModule) -> ActionClassifier:
        from ivcp.stages.action_cls.module import ActionClassifier

        assert isinstance(module, ActionClassifier)
        return module
