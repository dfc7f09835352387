"""Runs of rewards go on where they were interrupted, and every stage starts from what another one has trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from ivcp.cli.main import app
from ivcp.export.export import merge_only
from ivcp.models.backbone_files import ModelFilesError
from ivcp.settings import ConfigError
from ivcp.stages.directory import check_complete, load_directory, load_weights
from ivcp.stages.registry import stage_of
from ivcp.training.arguments import check_stage_settings
from ivcp.training.build import build_trainer
from ivcp.training.checkpoints.folder import CheckpointError, find_start
from ivcp.training.checkpoints.output_dir import check_output_dir
from ivcp.training.result import run_trainer
from tests.language import index_of, language_config, processor_of, samples_of
from tests.tiny_families import build_tiny_family

RULE = {"reward_rule": "pattern", "reward_pattern": "e", "max_new_tokens": 3, "num_generations": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_tiny_family(tmp_path_factory.mktemp("going_on") / "base", "qwen2_vl")


def trainer_of(base: Path, output_dir: Path, stage: str, **settings: Any) -> Any:
    common = {"learning_rate": 5e-3, "per_device_train_batch_size": 2, "logging_steps": 1, "report_to": "none"}
    steps = {"max_steps": 4, "save_steps": 2, "output_dir": str(output_dir)}
    config = language_config(base, stage, **{**common, **steps, **settings})
    samples = {"train": samples_of(config, processor_of(base), range(8))}
    return build_trainer(config, index=index_of(config, {"train": 8}), samples=samples, output_dir=output_dir)


def trained(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("stage", ["grpo", "ppo"])
def test_resuming_repeats_what_is_written_and_learned(base, tmp_path, stage):
    settings = {**RULE, "gradient_accumulation_steps": 2, **({"ppo_epochs": 2} if stage == "ppo" else {})}
    whole = trainer_of(base, tmp_path / "whole", stage, **settings)
    run_trainer(whole)
    resumed = trainer_of(base, tmp_path / "resumed", stage, **settings)
    run_trainer(resumed, resume_from=str(tmp_path / "whole" / "checkpoint-2"))
    for name in ("loss", "reward"):
        rows = [[row[name] for row in each.state.log_history if name in row] for each in (whole, resumed)]
        assert len(rows[0]) == 4
        assert rows[1] == pytest.approx(rows[0], abs=1e-5)
    found, expected = trained(resumed), trained(whole)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0, msg=name)


def test_the_value_head_of_ppo_is_read_as_it_was_written(base, tmp_path):
    whole = trainer_of(base, tmp_path / "whole", "ppo", **RULE, ppo_epochs=2)
    run_trainer(whole)
    assert whole.model.value_head.bias.abs() > 0
    again = trainer_of(base, tmp_path / "again", "ppo", **RULE)
    load_weights(again.stage, again.model, tmp_path / "whole")
    torch.testing.assert_close(again.model.value_head.bias, whole.model.value_head.bias)
    torch.testing.assert_close(again.model.value_head.weight, whole.model.value_head.weight)


def test_the_value_head_of_ppo_stays_with_the_training(base, tmp_path):
    """A checkpoint is none without it; what is exported writes, and nobody reads one there."""
    whole = trainer_of(base, tmp_path / "whole", "ppo", **RULE, max_steps=2)
    run_trainer(whole)
    merge_only(whole.stage.config, adapter_dir=tmp_path / "whole", export_dir=tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").glob("*.safetensors")] == ["model.safetensors"]
    assert "value_head" not in (tmp_path / "model" / "README.md").read_text()
    assert load_directory(tmp_path / "model").stage.served_as == "writer"
    checkpoint = tmp_path / "whole" / "checkpoint-2"
    check_complete(checkpoint)
    (checkpoint / "value_head.safetensors").unlink()
    with pytest.raises(ModelFilesError, match=r"value_head\.safetensors missing"):
        check_complete(checkpoint)


@pytest.mark.parametrize(
    ("first", "then"),
    [("sft", "dpo"), ("sft", "rm"), ("sft", "ppo"), ("sft", "grpo"), ("rm", "ppo"), ("rm", "sft"), ("ppo", "rm")],
)
def test_a_stage_starts_from_the_adapter_of_another(base, tmp_path, caplog, first, then):
    earlier = trainer_of(base, tmp_path / "first", first, **(RULE if first == "ppo" else {}))
    run_trainer(earlier)
    settings = {"adapter_name_or_path": str(tmp_path / "first")} | (RULE if then in ("ppo", "grpo") else {})
    with caplog.at_level("INFO"):
        started = trainer_of(base, tmp_path / "then", then, **settings)
    begins_anew = then in ("rm", "ppo") and first == "sft"
    assert ("has no value_head.safetensors: these begin anew" in caplog.text) == begins_anew
    assert ("the reference is the base model, without what" in caplog.text) == (then in ("dpo", "ppo"))
    found, expected = trained(started), trained(earlier)
    for name in found.keys() & expected.keys() if not begins_anew else expected:
        torch.testing.assert_close(found[name], expected[name], msg=name)
    run_trainer(started)
    assert (tmp_path / "then" / "adapter_model.safetensors").is_file()


def test_a_reward_model_of_another_stage_is_refused_before_anything_is_loaded(base, tmp_path):
    run_trainer(trainer_of(base, tmp_path / "sft", "sft", max_steps=1))
    rewarded = {name: value for name, value in RULE.items() if not name.startswith("reward")}
    config = language_config(base, "grpo", **rewarded, reward_model=str(tmp_path / "sft"))
    with pytest.raises(ConfigError, match="stage sft trained it, and it gives no scores"):
        check_stage_settings(stage_of(config))


def test_no_stage_goes_on_with_the_steps_of_another(base, tmp_path):
    """Its checkpoint would be taken for what this one has learned, with no step left to train."""
    run_trainer(trainer_of(base, tmp_path, "sft"))
    for asked in (True, str(tmp_path / "checkpoint-2")):
        config = language_config(base, "kto", output_dir=str(tmp_path), resume_from_checkpoint=asked)
        with pytest.raises(CheckpointError, match="is of stage sft, and this run is of stage kto: start a new one"):
            find_start(config, tmp_path)
    same = language_config(base, "sft", output_dir=str(tmp_path), resume_from_checkpoint=True, mask_history=True)
    assert find_start(same, tmp_path) == tmp_path / "checkpoint-4"


@pytest.mark.parametrize("key", ["reward_model", "ref_model"])
def test_what_a_run_reads_is_not_written_over(base, tmp_path, key):
    settings = {key: str(tmp_path), "output_dir": str(tmp_path), "overwrite_output_dir": True}
    config = language_config(base, "grpo", **settings, **({} if key == "reward_model" else RULE))
    with pytest.raises(ConfigError, match=f"{key} = .* is in output_dir"):
        check_output_dir(config, tmp_path)


def test_chat_says_what_a_trained_model_does_not_do(base, tmp_path):
    for stage in ("rm", "sft"):
        run_trainer(trainer_of(base, tmp_path / stage, stage, max_steps=1))
    words = ("chat", "--question", "Who?", "max_new_tokens=2", "--model-dir")
    scores = CliRunner().invoke(app, [*words, str(tmp_path / "rm")])
    assert "stage rm trained it, and it writes no answers: give a model that writes" in str(scores.exception)
    for settings, is_said in (([], False), (["video_num_frames=3"], True)):
        done = CliRunner().invoke(app, [*words, str(tmp_path / "sft"), *settings])
        assert done.exit_code == 0, done.output
        assert ("settings of frames have no effect" in " ".join(done.output.split())) == is_said
