"""The stages by name: those of this library, and those that other packages name as entry points `ivcp.stages`.

A stage is imported when it is asked for: torch and transformers take seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ivcp.packages import entry_points_of
from ivcp.settings import ConfigError, RunConfig

if TYPE_CHECKING:
    from ivcp.stages.protocol import Stage

STAGES = {
    "action_cls": "ivcp.stages.action_cls.stage:ActionClassification",
    "pt": "ivcp.stages.language.supervised:Pretraining",
    "sft": "ivcp.stages.language.supervised:SupervisedFinetuning",
    "rm": "ivcp.stages.language.pairs:RewardModelling",
    "dpo": "ivcp.stages.language.pairs:PreferenceOptimization",
    "kto": "ivcp.stages.language.tagged:TaggedAnswers",
    "ppo": "ivcp.stages.language.policy_stages:ProximalPolicy",
    "grpo": "ivcp.stages.language.policy_stages:GroupRelative",
}
"""Setting `stage` → where its class is: called with a run's settings, it gives a `Stage`."""
_LOSSES_OF_DPO = ("orpo", "simpo")
"""What some call stages, and LLaMA-Factory does not."""


def check_stage(config: RunConfig) -> None:
    """Checks that a run's stage can be trained; imports nothing of it.

    Raises:
        ConfigError: there is none of that name.
    """
    _target(config)


def stage_of(config: RunConfig) -> Stage:
    """The stage that a run's settings name.

    Raises:
        ConfigError: there is none of that name, or it cannot be imported.
    """
    target = _target(config)
    module, _, attribute = target.partition(":")
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"stage = {config.method.stage}: {target} cannot be imported: {error}") from error
    stage: Stage = kind(config)
    return stage


def _target(config: RunConfig) -> str:
    name = config.method.stage
    if name in STAGES:
        return STAGES[name]
    known = {name: entry.value for name, entry in entry_points_of("ivcp.stages").items()}
    if name not in known:
        choice = ", ".join(sorted(STAGES | known))
        raise ConfigError(
            f"stage = {name}: it cannot be trained here; "
            + (f"set stage: dpo and pref_loss: {name}" if name in _LOSSES_OF_DPO else f"choose from {choice}")
        )
    return known[name]
