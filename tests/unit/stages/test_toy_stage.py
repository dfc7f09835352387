"""A stage that the library does not know goes the whole way: prepared, trained, resumed, loaded."""

import pytest
import torch

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.models.backbone_files import ModelFilesError
from ivcp.preparation.prepare import prepare_clips
from ivcp.settings import ConfigError, from_flat
from ivcp.stages import registry
from ivcp.stages.directory import load_directory
from ivcp.training.build import build_trainer, training_samples
from ivcp.training.result import run_trainer
from ivcp.validation.validate import validate_data
from tests.data_sets import make_clip, sharegpt_row
from tests.toy_stage import ToyStage


@pytest.fixture
def toy_config(monkeypatch, data_set, base_model_dir):
    """Settings of the stage `toy` on twelve clips of two lengths: `toy_config(**settings)`."""
    monkeypatch.setitem(registry.STAGES, "toy", "tests.toy_stage:ToyStage")
    rows = []
    for number in range(12):
        video = make_clip(data_set.folder / f"{number}.mp4", num_frames=(8, 20)[number % 2], seed=number)
        rows.append(sharegpt_row(video.name, ("short", "long")[number % 2], group=f"person {number // 2}"))
    data_set.add("actions", rows)

    def make(**settings):
        defaults = {"stage": "toy", "model_name_or_path": str(base_model_dir), "video_max_pixels": 32 * 32}
        training = {"learning_rate": 3e-3, "per_device_train_batch_size": 4, "logging_steps": 1, "save_steps": 3}
        return data_set.config(**defaults | training | {"val_size": 0.3, "report_to": (), "max_steps": 9} | settings)

    return make


@pytest.fixture
def toy_index(toy_config, tmp_path):
    validate_data(toy_config(), tmp_path / "validated")
    return prepare_clips(
        toy_config(),
        validated_dir=tmp_path / "validated",
        shards_uri=str(tmp_path / "shards"),
        index_path=tmp_path / "index.json",
    )


def trainer_of(config, index, output_dir):
    samples = training_samples(registry.stage_of(config), index)
    return build_trainer(config, index=index, samples=samples, output_dir=output_dir)


def losses(trainer):
    return {row["step"]: row["loss"] for row in trainer.state.log_history if "loss" in row}


def test_samples_have_the_stages_own_column_and_learn_the_answer(toy_index):
    samples = PreparedSamples(toy_index, "train")

    assert sorted({sample.columns["length"] for sample in samples}) == pytest.approx([0.4, 1.0])
    assert sorted(set(samples.column("length"))) == pytest.approx([0.4, 1.0])
    assert toy_index.stage == "toy"
    assert toy_index.label_counts == {}
    assert all(sample.loss_mask.sum() == len(sample.input_ids) - sample.num_prompt_tokens > 0 for sample in samples)


def test_it_trains_resumes_and_loads(toy_config, toy_index, tmp_path):
    whole = trainer_of(toy_config(), toy_index, tmp_path / "whole")
    result = run_trainer(whole)
    resumed = trainer_of(toy_config(), toy_index, tmp_path / "resumed")
    run_trainer(resumed, resume_from=str(tmp_path / "whole" / "checkpoint-3"))

    expected = losses(whole)
    assert expected[9] < 0.7 * expected[1]
    assert losses(resumed) == pytest.approx(expected, abs=1e-6)
    assert result.val_top1_accuracy is None
    assert "eval_mean_error" in whole.state.log_history[-2] | whole.state.log_history[-1]

    samples = list(PreparedSamples(toy_index, "val"))
    seen = torch.from_numpy(whole.predict(samples).predictions)
    for directory in (tmp_path / "whole", tmp_path / "whole" / "checkpoint-9"):
        loaded = load_directory(directory)
        assert isinstance(loaded.stage, ToyStage)
        torch.testing.assert_close(loaded.outputs(samples), seen, atol=1e-5, rtol=0)
    with pytest.raises(ModelFilesError, match="the outputs of a Length guesser are no classes"):
        _ = loaded.labels


def test_settings_that_need_classes_are_refused(toy_config, toy_index):
    config = toy_config(balanced_sampling=True)
    with pytest.raises(ConfigError, match="balanced_sampling: the samples of stage toy have no class"):
        training_samples(registry.stage_of(config), toy_index)


def test_checkpoints_are_compared_by_what_the_stage_measures(toy_config, toy_index, tmp_path):
    config = toy_config(load_best_model_at_end=True, eval_strategy="steps", eval_steps=3)
    trainer = trainer_of(config, toy_index, tmp_path / "best")
    assert trainer.args.metric_for_best_model == "eval_loss"
    with pytest.raises(ConfigError, match="metric_for_best_model = mean_errr: stage toy"):
        trainer_of(toy_config(metric_for_best_model="mean_errr"), toy_index, tmp_path / "wrong")


def test_an_installed_package_names_its_stage(monkeypatch, tmp_path):
    described = tmp_path / "toy-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[ivcp.stages]\ntoy = tests.toy_stage:ToyStage\n")
    with pytest.raises(ConfigError, match="stage = toy: it cannot be trained here; choose from action_cls"):
        registry.stage_of(from_flat({"stage": "toy"}))
    monkeypatch.syspath_prepend(tmp_path)

    registry.check_stage(from_flat({"stage": "toy"}))
    assert isinstance(registry.stage_of(from_flat({"stage": "toy"})), ToyStage)


@pytest.mark.parametrize("place", ["tests.no_such_module:Stage", "tests.toy_stage:NoSuchStage"])
def test_a_stage_that_cannot_be_imported_is_named(monkeypatch, place):
    monkeypatch.setitem(registry.STAGES, "toy", place)
    with pytest.raises(ConfigError, match=f"stage = toy: {place} cannot be imported: "):
        registry.stage_of(from_flat({"stage": "toy"}))
