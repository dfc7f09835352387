"""The stages that learn from rewards: `grpo` and `ppo`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivcp.records import PreparedIndex
from ivcp.settings import ConfigError, GenerationConfig, RunConfig
from ivcp.stages.language.supervised import TokenStage
from ivcp.stages.language.value_head_stage import ValueHeadStage
from ivcp.stages.protocol import Collate

if TYPE_CHECKING:
    from torch import Tensor

    from ivcp.models.backbone import BackboneModule
    from ivcp.models.positions import RopePositions
    from ivcp.models.processor import Processor
    from ivcp.stages.language.policy import PolicyModule
    from ivcp.stages.loaded_model import LoadedModel

_OF_REWARDS = ("reward_model", "reward_rule", "reward_pattern", "cliprange", "ref_model")
_OF_GROUPS = ("num_generations", "grpo_beta", "scale_rewards")
_OF_PPO = ("ppo_epochs", "ppo_whiten_rewards", "kl_coef", "cliprange_value", "vf_coef", "gamma", "lam")
_AS_THE_MODEL_HAS_IT: dict[str, float] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
"""How answers are drawn unless the settings say otherwise: by the probabilities that are learned."""


@dataclass(frozen=True)
class PolicyStage(TokenStage):
    """What both share: the model writes answers while it trains. What comes of it is a model that `sft` could make."""

    @property
    def title(self) -> str:
        """What a model of this stage is."""
        return "Video language model"

    @property
    def principle(self) -> str:
        """How it works."""
        return "the model learned from rewards of its own answers"

    @property
    def changes_media(self) -> str | None:
        """Answers are written from pixels."""
        return f"stage {self.config.method.stage} writes answers while it trains"

    @property
    def loss_counts(self) -> str | None:
        """Each prompt counts once."""
        return None

    @property
    def drawing(self) -> GenerationConfig:
        """How answers are drawn in training: `do_sample` and `num_beams` are of those that evaluation compares."""
        given = self.config.generation
        own = {key: value for key, value in _AS_THE_MODEL_HAS_IT.items() if key not in given.model_fields_set}
        return given.model_copy(update=own | {"do_sample": True, "num_beams": 1})

    def check_settings(self) -> None:
        """Checks that answers can be drawn and rewarded here.

        Raises:
            ConfigError: they cannot.
            ModelFilesError: the directory of `reward_model` is incomplete.
        """
        from ivcp.distributed.sharding import sharding_of
        from ivcp.stages.language.rewards import check_gives_scores

        super().check_settings()
        stage = self.config.method.stage
        sharding = sharding_of(self.config.train)
        if sharding in ("zero3", "fsdp2"):
            named = f"deepspeed = {self.config.train.deepspeed}" if self.config.train.deepspeed else "fsdp"
            raise ConfigError(
                f"{named} shards the weights, and stage {stage} writes answers while it trains, for which each process "
                "needs all of them: set deepspeed: z2"
            )
        if self.config.language.reward_model is None and self.config.language.reward_rule is None:
            raise ConfigError(
                f"stage = {stage}: nothing says what an answer is worth: set reward_model to the directory of an `rm` "
                "run, or reward_rule: exact_match, contains or pattern"
            )
        if self.config.language.reward_model is not None:
            check_gives_scores(self.config.language.reward_model)

    def build(self, index: PreparedIndex, processor: Processor) -> BackboneModule:
        """The base model with what trains in it, and what rewards its answers.

        Raises:
            FileNotFoundError: the base model does not exist.
            ModelFilesError: the directory of `reward_model` is incomplete.
            ConfigError: the reward model gives no scores, or reads other tokens.
            UnsupportedMethodError: the model cannot be trained as asked.
        """
        from ivcp.inference.generation import Writer
        from ivcp.stages.language.rewards import reward_of

        backbone = super().build(index, processor).backbone
        return self.policy(Writer(backbone, processor, self.drawing), reward_of(self.config, processor))

    @abstractmethod
    def policy(self, writer: Any, reward: Any) -> PolicyModule:
        """The module that trains what `writer` lets write."""

    def collator(
        self, module: BackboneModule, processor: Processor, *, positions: RopePositions | None, training: bool
    ) -> Collate:
        """Prompts, while it trains; whole conversations for the model that came of it."""
        from ivcp.stages.language.collators import PromptCollator
        from ivcp.stages.language.policy import PolicyModule

        if isinstance(module, PolicyModule):
            return PromptCollator(processor)
        return super().collator(module, processor, positions=positions, training=training)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The mean reward of the likeliest answers."""
        return ("reward",)

    @property
    def compared_by(self) -> tuple[str, ...]:
        """The reward; not the likelihood of the rows' answers, which were never learned."""
        return ("reward", "exact_match")

    def rewarded(self, model: LoadedModel, run: RunConfig) -> BackboneModule | None:
        """As validation measures it while the model trains.

        Raises:
            ConfigError: the reward model reads other tokens than the model writes.
        """
        from ivcp.inference.generation import Writer
        from ivcp.stages.language.rewards import reward_of

        if run.language.reward_rule is None and run.language.reward_model is None:
            return None
        stage = replace(self, config=run)
        writer = Writer(model.module.backbone, model.processor, stage.drawing)
        return stage.policy(writer, reward_of(run, model.processor)).eval()

    def metrics(self, predictions: Any, targets: Any) -> dict[str, float]:
        """While it trains of rewards, (samples, 1), and of a finished model what `sft` measures."""
        if predictions.shape[1] == 1:
            return {"reward": float(predictions.mean())}
        return super().metrics(predictions, targets)


@dataclass(frozen=True)
class GroupRelative(PolicyStage):
    """`grpo`: several answers to each prompt are compared with each other."""

    @property
    def own_settings(self) -> tuple[str, ...]:
        """What rewards an answer, and how those of a group are compared."""
        return (*_OF_REWARDS, *_OF_GROUPS)

    @property
    def rows_per_sample(self) -> int:
        """The size of a group."""
        return self.config.language.num_generations

    def policy(self, writer: Any, reward: Any) -> PolicyModule:
        """The module that trains."""
        from ivcp.stages.language.policy import GroupModule

        return GroupModule(writer.backbone, self.config, writer=writer, reward=reward)


@dataclass(frozen=True)
class ProximalPolicy(ValueHeadStage, PolicyStage):
    """`ppo`: a value head says what an answer is expected to earn; nobody needs it behind the training."""

    head_has_bias = True

    @property
    def own_settings(self) -> tuple[str, ...]:
        """What rewards an answer, and how the updates are made."""
        return (*_OF_REWARDS, *_OF_PPO)

    @property
    def files(self) -> tuple[str, ...]:
        """None: what came of it is a model that writes."""
        return ()

    @property
    def training_files(self) -> tuple[str, ...]:
        """The value head."""
        return super().files

    def save(self, directory: Path, module: BackboneModule, weights: Mapping[str, Tensor]) -> None:
        """Writes the value head of a module that has one."""
        from ivcp.stages.language.policy import ProximalModule

        if isinstance(module, ProximalModule):
            super().save(directory, module, weights)

    @property
    def updates_per_batch(self) -> int:
        """`ppo_epochs`."""
        return self.config.language.ppo_epochs

    def policy(self, writer: Any, reward: Any) -> PolicyModule:
        """The module that trains."""
        from ivcp.stages.language.policy import ProximalModule

        return ProximalModule(writer.backbone, self.config, writer=writer, reward=reward)
