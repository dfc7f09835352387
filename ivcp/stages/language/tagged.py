"""The stage that learns from single answers with a tag: `kto`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ivcp.data.prepared.sample import Column, Sample
from ivcp.records import Clip, RowKind
from ivcp.settings import ConfigError, RunConfig
from ivcp.stages.language.stage import DESIRABLE, LanguageStage
from ivcp.stages.protocol import Collate, TrainingInputs

if TYPE_CHECKING:
    from ivcp.models.backbone import BackboneModule
    from ivcp.models.positions import RopePositions
    from ivcp.models.processor import Processor


@dataclass(frozen=True)
class TaggedAnswers(LanguageStage):
    """`kto`: the model learns from answers of which each is desirable or not."""

    @property
    def title(self) -> str:
        """What a model of this stage is."""
        return "Video language model"

    @property
    def principle(self) -> str:
        """How it works."""
        return "the model learned from desirable and undesirable answers"

    @property
    def own_settings(self) -> tuple[str, ...]:
        """The weights of the loss, and what it compares with."""
        weights = ("kto_chosen_weight", "kto_rejected_weight")
        return ("pref_beta", "pref_ftx", *weights, "ref_model", "precompute_ref_log_probs")

    def computed_once(self, inputs: TrainingInputs) -> TrainingInputs:
        """What the reference says of all answers, and of the other one that each prompt then meets in every epoch.

        Raises:
            ConfigError: that is asked for, and something speaks against it.
        """
        from ivcp.stages.language.kept_reference import ReferencePass

        return ReferencePass(self, inputs, is_default=False, mismatches=True).replaced()

    @property
    def rows(self) -> RowKind:
        """Conversations whose answer has a tag."""
        return "tags"

    @property
    def rows_per_sample(self) -> int:
        """Its answer, and that of another sample."""
        return 2

    @property
    def columns(self) -> tuple[Column, ...]:
        """The tag."""
        return (DESIRABLE,)

    def values(self, clip: Clip) -> dict[str, Any]:
        """The tag."""
        return {DESIRABLE.name: int(bool(clip.desirable))}

    def check_settings(self) -> None:
        """Checks that answers meet prompts of other samples.

        Raises:
            ConfigError: batches are of one sample, or rows are to be shared.
        """
        super().check_settings()
        is_kept = self.config.language.precompute_ref_log_probs
        if self.config.train.per_device_train_batch_size == 1 and not is_kept:
            raise ConfigError(
                "per_device_train_batch_size = 1: stage kto compares each prompt with the answer of another sample of "
                "its batch; set 2 or more, and more gradient_accumulation_steps where memory is short, or "
                "precompute_ref_log_probs: true"
            )

    def module(self, backbone: Any, *, trains: bool) -> BackboneModule:
        """The backbone with the loss of tagged answers."""
        from ivcp.stages.language.answers import TaggedModule

        return TaggedModule(backbone, self.config if trains else None)

    def measured(self, module: BackboneModule, run: RunConfig) -> BackboneModule:
        """The same weights with the loss and the reference model of a run.

        Raises:
            ConfigError: there is no reference model.
        """
        from ivcp.stages.language.answers import TaggedModule, as_measured

        config = self.config.model_copy(update={"language": run.language})
        measured = TaggedModule(module.backbone, config)
        as_measured(measured, config)
        return measured.eval()

    def is_reference(self, sample: Sample) -> bool:
        """Desirable ones are."""
        return bool(sample.columns[DESIRABLE.name])

    def collator(
        self, module: BackboneModule, processor: Processor, *, positions: RopePositions | None, training: bool
    ) -> Collate:
        """Answers, then the same prompts with other answers."""
        from ivcp.stages.language.collators import TaggedCollator
        from ivcp.stages.language.module import WordsModule

        assert isinstance(module, WordsModule)
        return TaggedCollator.of(module, processor, positions)

    @property
    def target_names(self) -> tuple[str, ...]:
        """The tags."""
        return ("is_desirable",)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """By how much desirable answers have the higher reward."""
        return ("rewards/margins",)

    def metrics(self, predictions: Any, targets: Any) -> dict[str, float]:
        """Means of the rewards, the last of `predictions`, (answers, 2), of either kind that there is."""
        rewards, good = predictions[:, 1], targets.astype(bool)
        kinds = {"rewards/chosen": rewards[good], "rewards/rejected": rewards[~good]}
        found = {name: float(values.mean()) for name, values in kinds.items() if len(values)}
        if len(found) == len(kinds):
            found["rewards/margins"] = found["rewards/chosen"] - found["rewards/rejected"]
        return found
