"""The stages that compare two answers: `rm` and `dpo`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivcp.data.prepared.sample import Column, Tokens
from ivcp.records import Clip, Message, RowKind
from ivcp.settings import RunConfig
from ivcp.stages.language.stage import REJECTED, LanguageStage
from ivcp.stages.language.value_head_stage import ValueHeadStage
from ivcp.stages.protocol import Collate, ServedAs, TrainingInputs
from ivcp.storage.atomic import write_whole

if TYPE_CHECKING:
    from torch import Tensor

    from ivcp.models.backbone import BackboneModule
    from ivcp.models.positions import RopePositions
    from ivcp.models.processor import Processor
    from ivcp.models.sampled import SampledVideo

MEAN_REWARD_FILE = "mean_reward.json"


@dataclass(frozen=True)
class PairStage(LanguageStage):
    """Stages that compare a chosen answer with a rejected one."""

    @property
    def rows(self) -> RowKind:
        """Conversations with two answers."""
        return "pairs"

    @property
    def rows_per_sample(self) -> int:
        """Its chosen answer, and its rejected one."""
        return 2

    @property
    def columns(self) -> tuple[Column, ...]:
        """The rejected answer's tokens."""
        return (REJECTED,)

    def tokenize_clip(
        self, processor: Processor, clip: Clip, videos: Sequence[SampledVideo]
    ) -> tuple[Tokens, Mapping[str, Any]]:
        """The conversation with the chosen answer, and the rejected one's tokens."""
        assert clip.rejected is not None
        chosen = self.tokenize(processor, clip.messages, videos)
        other = (*clip.messages[:-1], Message(role="assistant", content=clip.rejected))
        rejected = self.tokenize(processor, other, videos)
        return chosen, {REJECTED.name: rejected.input_ids[rejected.num_prompt_tokens :].tolist()}

    def collator(
        self, module: BackboneModule, processor: Processor, *, positions: RopePositions | None, training: bool
    ) -> Collate:
        """Chosen answers, then rejected ones."""
        from ivcp.stages.language.collators import PairCollator
        from ivcp.stages.language.module import WordsModule

        assert isinstance(module, WordsModule)
        return PairCollator.of(module, processor, positions)


@dataclass(frozen=True)
class RewardModelling(ValueHeadStage, PairStage):
    """`rm`: a value head learns which of two answers is the better one."""

    @property
    def title(self) -> str:
        """What a model of this stage is."""
        return "Reward model"

    @property
    def principle(self) -> str:
        """How it works."""
        return "a linear layer makes a number of the last hidden state of an answer: more is better"

    @property
    def own_settings(self) -> tuple[str, ...]:
        """None of them."""
        return ()

    @property
    def writes(self) -> bool:
        """It gives a number."""
        return False

    @property
    def served_as(self) -> ServedAs:
        """It says how good an answer is."""
        return "scorer"

    def module(self, backbone: Any, *, trains: bool) -> BackboneModule:
        """The backbone with a value head."""
        from ivcp.stages.language.answers import RewardModule

        return RewardModule(backbone)

    @property
    def trains_backbone(self) -> bool:
        """The value head alone lies behind it."""
        return False

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The share of pairs whose chosen answer has the higher score, and by how much it has."""
        return ("accuracy", "margin")

    def metrics(self, predictions: Any, targets: Any) -> dict[str, float]:
        """Of the scores of pairs, (pairs, 2)."""
        margins = predictions[:, 0] - predictions[:, 1]
        return {"accuracy": float((margins > 0).mean()), "margin": float(margins.mean())}

    def restore(self, directory: Path, backbone: Any, processor: Processor) -> BackboneModule:
        """The reward model of a directory.

        Raises:
            ModelFilesError: its value head is of another model.
        """
        from ivcp.distributed.weights import write_weights
        from ivcp.models.backbone_files import ModelFilesError

        module = self.module(backbone, trains=False)
        try:
            write_weights(module, self.read_weights(directory, module))
        except ValueError as error:
            raise ModelFilesError(f"{directory}: value head and base model do not belong together: {error}") from error
        return module


@dataclass(frozen=True)
class PreferenceOptimization(PairStage):
    """`dpo`: the model learns to write chosen answers rather than rejected ones."""

    @property
    def title(self) -> str:
        """What a model of this stage is."""
        return "Video language model"

    @property
    def principle(self) -> str:
        """How it works."""
        return "the model learned to prefer one of two answers to the other"

    @property
    def own_settings(self) -> tuple[str, ...]:
        """The loss, and what it compares with."""
        weights = ("pref_ftx", "pref_bco_weight", "dpo_label_smoothing", "simpo_gamma", "ld_alpha")
        return ("pref_loss", "pref_beta", *weights, "ref_model", "precompute_ref_log_probs")

    def computed_once(self, inputs: TrainingInputs) -> TrainingInputs:
        """What the reference says of all pairs, where they come several times.

        Raises:
            ConfigError: that is asked for, and something speaks against it.
        """
        from ivcp.stages.language.kept_reference import ReferencePass, times_seen

        return ReferencePass(self, inputs, is_default=times_seen(inputs, self) > 1).replaced()

    def module(self, backbone: Any, *, trains: bool) -> BackboneModule:
        """The backbone with the preference loss."""
        from ivcp.stages.language.answers import PreferenceModule

        return PreferenceModule(backbone, self.config if trains else None)

    def measured(self, module: BackboneModule, run: RunConfig) -> BackboneModule:
        """The same weights with the loss and the reference model of a run.

        Raises:
            ConfigError: there is no reference model.
        """
        from ivcp.stages.language.answers import PreferenceModule, as_measured

        config = self.config.model_copy(update={"language": run.language})
        measured = PreferenceModule(module.backbone, config)
        as_measured(measured, config)
        return measured.eval()

    @property
    def training_files(self) -> tuple[str, ...]:
        """The mean reward so far, where `pref_bco_weight` compares with it."""
        return (MEAN_REWARD_FILE,) if self.config.language.pref_bco_weight else ()

    def save(self, directory: Path, module: BackboneModule, weights: Mapping[str, Tensor]) -> None:
        """Writes that mean."""
        from ivcp.stages.language.answers import PreferenceModule

        if self.training_files and isinstance(module, PreferenceModule) and module.compare is not None:
            write_whole(directory / MEAN_REWARD_FILE, json.dumps(vars(module.compare.mean_reward)) + "\n")

    def go_on(self, directory: Path, module: BackboneModule) -> None:
        """With that mean."""
        from ivcp.stages.language.answers import PreferenceModule
        from ivcp.stages.language.losses.preference import RunningMean

        if self.training_files and isinstance(module, PreferenceModule) and module.compare is not None:
            found = json.loads((directory / MEAN_REWARD_FILE).read_text(encoding="utf-8"))
            module.compare.mean_reward = RunningMean(**found)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The share of pairs whose chosen answer has the higher reward, and by how much it has."""
        return ("rewards/accuracies", "rewards/margins")

    def metrics(self, predictions: Any, targets: Any) -> dict[str, float]:
        """Means of the rewards of pairs, the last two of `predictions`, (pairs, 4)."""
        import torch

        from ivcp.stages.language.answers import pair_numbers

        numbers = pair_numbers(*torch.from_numpy(predictions[:, 2:]).unbind(dim=1))
        return {name: float(values.mean()) for name, values in numbers.items()}
