"""What a stage is: a kind of training, as the rest of the library sees it.

A stage says what it asks of the data, builds the module whose forward returns a loss, makes batches for it, measures
it, and writes and reads what it adds to the backbone. Preparation, trainer, caches, launchers, evaluation, export and
predictor work through this protocol and know no stage by name (the idea is torchtitan's `TrainSpec`).
`ivcp.stages.registry` finds a stage by the setting `stage`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ivcp.data.prepared.sample import Column, Sample, Tokens
from ivcp.data.prompts import VIDEO_TAG
from ivcp.records import Clip, Labels, Message, PreparedIndex, RowKind
from ivcp.settings import RunConfig

if TYPE_CHECKING:
    from torch import Tensor

    from ivcp.inference.compute import Compute
    from ivcp.inference.loop import Samples
    from ivcp.models.backbone import BackboneModule
    from ivcp.models.positions import RopePositions
    from ivcp.models.processor import Batch, Processor
    from ivcp.models.sampled import SampledVideo
    from ivcp.stages.loaded_model import LoadedModel

ServedAs = Literal["classifier", "writer", "scorer"]
"""It gives clips a class, answers conversations, or says how good an answer is."""
Collate = Callable[[Sequence[Sample]], "Batch"]


@dataclass(frozen=True)
class Part:
    """How a part that a stage adds to the backbone learns."""

    learning_rate: float
    """At its peak."""
    decays: bool = True
    """Whether weight decay applies to it."""


@dataclass(frozen=True)
class TrainingInputs:
    """What a training is made of, for a stage that computes or trains in a way of its own."""

    module: BackboneModule
    processor: Processor
    index: PreparedIndex
    train: Samples
    val: Samples | None
    collate: Collate
    """As validation has it."""
    compute: Compute
    eval_batch_size: int
    num_workers: int
    output_dir: Path


@dataclass(frozen=True)
class TrainingOutcome:
    """What a stage that trained in a way of its own came to; the module it was given is trained."""

    config: RunConfig
    """The settings that describe what was trained."""
    steps: int
    epochs: float
    train_loss: float
    log_row: Mapping[str, float]
    """A row of the log; what was measured on the validation split is called `eval_<metric>`."""


@dataclass(frozen=True)
class ClassifierHead:
    """What another engine needs to make a module's logits of the language model's states."""

    token_id: int
    """The token at which the state is read; it stands once in every prompt."""
    shape: Mapping[str, Any]
    """The decoder's, as JSON types."""
    linear: tuple[Tensor, Tensor] | None
    """Weight, (classes, hidden_size), and bias, (classes,), of a decoder that is one linear layer."""
    reads_vision_states: bool
    """Whether the decoder looks at the states of the vision tokens, too."""
    logits: Callable[[Tensor, Tensor | None, Tensor | None], Tensor]
    """The decoder: of states at the token, (batch, hidden_size); where it reads them, of states, (batch, tokens,
    hidden_size), and of where vision tokens are among these, (batch, tokens)."""


class Stage(Protocol):
    """A stage with the settings of a run; small and picklable, for worker processes have it too.

    A class that derives from it writes what every stage has to say, and of the rest what is not as it is here.
    """

    config: RunConfig

    @property
    def title(self) -> str:
        """What a model of this stage is, in two or three words."""

    @property
    def principle(self) -> str:
        """How it works, as half a sentence: "the language model's last hidden state at …"."""

    @property
    def steady_outputs(self) -> slice:
        """Those of a sample's outputs that move a little where weights do; a share of right tokens jumps."""
        return slice(None)

    # What it asks of the data.

    @property
    def rows(self) -> RowKind:
        """What it asks of a row beside its media."""
        return "labels"

    @property
    def data_settings(self) -> tuple[str, ...]:
        """The settings that it reads while data are validated and prepared, beside the sections for all stages."""
        return ()

    @property
    def own_settings(self) -> tuple[str, ...] | None:
        """What it reads of the settings of stages, those of the sections `action_cls` and `language`; null where that
        is not known."""
        return None

    @property
    def columns(self) -> tuple[Column, ...]:
        """What preparation adds to each sample."""
        return ()

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Tokens that the tokenizer must never split."""
        return ()

    @property
    def smallest_prompt(self) -> tuple[Message, ...]:
        """A conversation with one video and as little text as the stage allows."""
        return (Message(role="user", content=VIDEO_TAG),)

    @property
    def reads_answers(self) -> bool:
        """Whether training reads the tokens behind the prompt."""
        return False

    def prompt_of(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The part of a conversation that the model is asked with."""

    def ask(self, text: str, *, system: Sequence[Message]) -> tuple[Message, ...]:
        """The prompt that asks `text` about a video; what it lacks of tags and special tokens is added.

        Raises:
            PromptError: it has one of them twice, or in the wrong order.
        """

    def tokenize(self, processor: Processor, messages: Sequence[Message], videos: Sequence[SampledVideo]) -> Tokens:
        """A conversation with its videos as tokens."""

    def tokenize_clip(
        self, processor: Processor, clip: Clip, videos: Sequence[SampledVideo]
    ) -> tuple[Tokens, Mapping[str, Any]]:
        """A row with its videos as tokens, and those values of `columns` that only its tokens tell."""
        return self.tokenize(processor, clip.messages, videos), {}

    @property
    def token_settings(self) -> tuple[str, ...]:
        """Those of `data_settings` that its tokens depend on, beside the text: with others they are made anew."""
        return ()

    def values(self, clip: Clip) -> dict[str, Any]:
        """The values of `columns` that a row of the annotations tells without a tokenizer, all numbers among them."""
        return {}

    def check_base(self, base: Any) -> None:
        """Checks that the settings fit the base model, of which `base` is transformers' configuration.

        Raises:
            ConfigError: they do not.
        """
        return None

    def check_settings(self) -> None:
        """Checks what the settings alone show, before anything is decoded.

        Raises:
            ConfigError: one does not fit another one, or what is here.
        """
        return None

    def check_data(self, index: PreparedIndex) -> None:
        """Checks that the data have what the settings ask for.

        Raises:
            ConfigError: they do not.
        """
        return None

    # What it measures.

    @property
    def writes(self) -> bool:
        """Whether its model answers a prompt with a text."""
        return False

    @property
    def served_as(self) -> ServedAs | None:
        """What a server does with its model; null where there is none for it."""
        if self.rows == "labels":
            return "classifier"
        return "writer" if self.writes else None

    def is_reference(self, sample: Sample) -> bool:
        """Whether the answer of a sample is one that the model should write."""
        return True

    def measured(self, module: BackboneModule, run: RunConfig) -> BackboneModule:
        """The module of a directory with what its loss and its metrics need of the settings of a run.

        Raises:
            ConfigError: they do not say enough.
        """
        return module

    def rewarded(self, model: LoadedModel, run: RunConfig) -> BackboneModule | None:
        """The module of a directory, writing the likeliest answers and measured by what a run says they are worth; null
        where it says nothing of that.

        Raises:
            ConfigError: what rewards answers reads other tokens than the model writes.
        """
        return None

    # What it trains.

    @property
    def trains_backbone(self) -> bool:
        """Whether gradients pass through the backbone for what the stage adds to it."""
        return False

    @property
    def changes_media(self) -> str | None:
        """Why training sees other media than the prepared ones, besides augmentation; null where it does not."""
        return None

    @property
    def sees_samples_once(self) -> bool:
        """Whether `train` reads each sample once, so that nothing need be kept of it."""
        return False

    @property
    def parts(self) -> Mapping[str, Part]:
        """The parts that the stage adds to the backbone, by name."""
        return {}

    def part_of(self, name: str) -> str:
        """The part that a parameter of the module outside of its backbone belongs to: its first name."""
        return name.partition(".")[0]

    def build(self, index: PreparedIndex, processor: Processor) -> BackboneModule:
        """The module at the start of training.

        Raises:
            FileNotFoundError: the base model does not exist.
            ModelFilesError: a file to start from does not fit the data or the settings.
            UnsupportedMethodError: the model cannot be trained as asked.
        """

    def computed_once(self, inputs: TrainingInputs) -> TrainingInputs:
        """The inputs with what is computed of their samples once, before the first step; all processes call it.

        Raises:
            ConfigError: the settings ask for that, and something speaks against it.
        """
        return inputs

    def collator(
        self, module: BackboneModule, processor: Processor, *, positions: RopePositions | None, training: bool
    ) -> Collate:
        """What makes the batches of training, or of validation and evaluation, as the module's forward takes them.

        Worker processes have it too: it keeps what it needs of the module, not the module.
        """

    @property
    def rows_per_sample(self) -> int:
        """How many rows of a batch a sample becomes, each about as long as the sample."""
        return 1

    @property
    def packs_rows(self) -> bool:
        """Whether training puts several samples into a row, where the model can."""
        return False

    @property
    def loss_counts(self) -> str | None:
        """Entry of a batch, (batch,), with how many items of each sample the mean loss is over; null where it is over
        samples. A step of several batches, or processes, then has the mean over all items."""
        return None

    @property
    def updates_per_batch(self) -> int:
        """Optimizer steps in a row with the same batches."""
        return 1

    @property
    def target_names(self) -> tuple[str, ...]:
        """Entries of a batch that hold what is to be predicted; empty leaves validation at the loss."""
        return ()

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics by which checkpoints may be compared: more is better. The loss is always one, where less is."""
        return ()

    @property
    def compared_by(self) -> tuple[str, ...]:
        """The metrics by which finished models are compared, the most telling one first: the first that was measured
        counts."""
        return self.metric_names

    def metrics(self, predictions: Any, targets: Any) -> dict[str, float]:
        """Numbers of a validation, from numpy arrays of the module's outputs and of `target_names`."""
        return {}

    def metrics_of(self, module: BackboneModule) -> Callable[[Any, Any], dict[str, float]]:
        """`metrics` of a module, which may know more of them than the settings say."""
        return self.metrics

    def train(self, inputs: TrainingInputs) -> TrainingOutcome | None:
        """Trains in a way of its own; null leaves it to the trainer.

        Raises:
            ConfigError: the data lack what that needs.
        """
        return None

    # What it writes and reads.

    @property
    def files(self) -> tuple[str, ...]:
        """The files that hold what it adds, in every directory."""
        return ()

    @property
    def training_files(self) -> tuple[str, ...]:
        """The files of what only a training goes on from; a finished model does without them."""
        return ()

    def save(self, directory: Path, module: BackboneModule, weights: Mapping[str, Tensor]) -> None:
        """Writes `files`, and `training_files` of a module that trains.

        `weights` are the module's, gathered, by the names of its `state_dict`.
        """
        return None

    def read_weights(self, directory: Path, module: BackboneModule) -> dict[str, Tensor]:
        """The weights in `files` and `training_files`, by their names in the module's `state_dict`.

        Raises:
            ModelFilesError: they were trained for other data than the module.
        """
        return {}

    def go_on(self, directory: Path, module: BackboneModule) -> None:
        """Takes from `training_files` what is no weight: a training goes on where the directory was written."""
        return None

    def restore(self, directory: Path, backbone: Any, processor: Processor) -> BackboneModule:
        """The module of a directory around a backbone that has its weights already.

        Raises:
            ModelFilesError: the files and the backbone do not belong together.
        """

    def fold(self, model: Any, module: BackboneModule, processor: Processor) -> None:
        """Puts what it can of the module's own weights into the plain transformers model, for export."""
        return None

    def labels(self, module: BackboneModule) -> Labels:
        """The classes that the module's outputs stand for, (batch, num_classes).

        Raises:
            ModelFilesError: its outputs are no classes.
        """
        from ivcp.models.backbone_files import ModelFilesError

        raise ModelFilesError(f"stage = {self.config.method.stage}: the outputs of a {self.title} are no classes")

    def classifier_head(self, module: BackboneModule) -> ClassifierHead | None:
        """What another engine needs to compute the module's outputs; null where none can."""
        return None
