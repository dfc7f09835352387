import json

import pytest
import torch
from torch import nn

from ivcp.inference.finite import NonFiniteError
from ivcp.settings import ActionClsConfig, ConfigError
from ivcp.stages.action_cls.head_sweep import SweepResult
from ivcp.stages.directory import load_directory
from ivcp.training.build import inputs_of
from ivcp.training.result import TrainingResult, run_stage, run_trainer
from ivcp.training.train import train_model

SWEEP = {
    "finetuning_type": "freeze",
    "freeze_trainable_layers": 0,
    "head_sweep": True,
    "head_sweep_epochs": 20,
    "val_size": 6,
}


@pytest.fixture
def sweep(train_on_shards, sharded_index):
    def run(**settings):
        trainer = train_on_shards(**SWEEP, **settings)
        return trainer, run_stage(trainer, inputs_of(trainer, sharded_index))

    return run


@pytest.fixture
def model_calls():
    """Counts the language model's forward passes."""
    calls = []

    def count(module, *_):
        if type(module).__name__.endswith("TextModel"):
            calls.append(module)

    handle = nn.modules.module.register_module_forward_hook(count)
    yield calls
    handle.remove()


def test_the_best_of_the_grid_is_the_written_classifier(sweep, tmp_path, prepared_clips):
    _, result = sweep()

    found = SweepResult.read(tmp_path / "adapter" / "head_sweep.json")
    defaults = ActionClsConfig()
    assert len(found.candidates) == 2 * 4 * 2 * defaults.head_sweep_seeds
    assert len({candidate.model_dump_json() for candidate in found.candidates}) == len(found.candidates)
    ranks = [(-candidate.val_top1_accuracy, candidate.val_loss) for candidate in found.candidates]
    assert ranks == sorted(ranks)
    assert ranks[0] < ranks[-1]
    assert result == TrainingResult.read(tmp_path / "adapter" / "training_result.json")
    assert (result.val_top1_accuracy, result.train_clips, result.val_clips) == (found.best.val_top1_accuracy, 12, 6)

    loaded = load_directory(tmp_path / "adapter")
    logits = loaded.outputs(prepared_clips[12:])
    labels = torch.tensor([clip.columns["label"] for clip in prepared_clips[12:]])
    assert loaded.module.decoder.shape.decoder_type == found.best.decoder_type
    assert (logits.argmax(dim=1) == labels).float().mean().item() == pytest.approx(found.best.val_top1_accuracy)
    assert nn.functional.cross_entropy(logits, labels).item() == pytest.approx(found.best.val_loss, abs=1e-4)
    assert found.best.val_top1_accuracy >= 5 / 6


def test_the_table_has_a_line_for_each_candidate(sweep, tmp_path):
    sweep(head_sweep_learning_rates="0.001,0.01", head_sweep_decoder_types=["mlp"], head_sweep_seeds=1)

    lines = (tmp_path / "adapter" / "head_sweep.md").read_text().splitlines()
    assert len(lines) == 2 + 2 * 2
    assert all(line.startswith("| mlp |") for line in lines[2:])


def test_a_second_sweep_reads_the_states_and_gives_the_same(sweep, tmp_path, model_calls):
    sweep()
    first = json.loads((tmp_path / "adapter" / "head_sweep.json").read_text())["candidates"]
    assert model_calls
    model_calls.clear()
    sweep(overwrite_output_dir=True)

    assert not model_calls
    assert json.loads((tmp_path / "adapter" / "head_sweep.json").read_text())["candidates"] == first
    sweep(overwrite_output_dir=True, seed=7)
    assert json.loads((tmp_path / "adapter" / "head_sweep.json").read_text())["candidates"] != first


def test_the_decoder_starts_a_later_fine_tuning(sweep, train_on_shards, tmp_path):
    sweep(head_sweep_decoder_types=["linear"], head_sweep_learning_rates=[0.01])
    swept = load_directory(tmp_path / "adapter").module.decoder.state_dict()
    trainer = train_on_shards(
        output_dir=tmp_path / "tuned", action_decoder_path=str(tmp_path / "adapter"), max_steps=1, learning_rate=1e-5
    )

    for name, value in trainer.model.decoder.state_dict().items():
        assert torch.equal(value, swept[name])
    run_trainer(trainer)


def test_states_that_cannot_be_kept_are_computed(sweep, caplog):
    _, result = sweep(vision_cache_max_gigabytes=1e-9)

    assert "states at the action token are not kept" in caplog.text
    assert result.val_top1_accuracy >= 5 / 6


def test_a_candidate_that_diverged_is_never_the_best(sweep, tmp_path):
    """NaN logits are class 0, a third of the clips: with two learning rates, one is as good as chance at least."""
    sweep(head_sweep_learning_rates=[1e38, 1e-2], head_sweep_weight_decays=[0.0], head_sweep_seeds=1)

    found = SweepResult.read(tmp_path / "adapter" / "head_sweep.json")
    assert [candidate.diverged for candidate in found.candidates] == [False, False, True, True]
    assert {candidate.learning_rate for candidate in found.candidates[:2]} == {1e-2}
    assert found.table().count("diverged |") >= 4
    assert "NaN" not in (tmp_path / "adapter" / "head_sweep.json").read_text()


def test_a_sweep_in_which_all_diverged_is_an_error(sweep, tmp_path):
    with pytest.raises(NonFiniteError, match=r"all 2 decoders diverged.*lower head_sweep_learning_rates"):
        sweep(head_sweep_learning_rates=[1e38], head_sweep_weight_decays=[0.0], head_sweep_seeds=1)
    assert not (tmp_path / "adapter" / "action_decoder.safetensors").exists()


def test_states_that_are_not_finite_are_an_error(train_on_shards, sharded_index):
    trainer = train_on_shards(**SWEEP)
    trainer.model.action_token_row.data[0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"train states at the action token: .* 12 of 12 clips .*clips:0, clips:1"):
        run_stage(trainer, inputs_of(trainer, sharded_index))


def test_the_training_step_sweeps(make_config, sharded_index, tmp_path):
    result = train_model(make_config(**SWEEP), index=sharded_index, output_dir=tmp_path / "out")

    assert result.steps == 20
    assert (tmp_path / "out" / "head_sweep.md").is_file()
    assert load_directory(tmp_path / "out").info.trained_steps == 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_size": 0}, "set val_size or eval_dataset"),
        ({"finetuning_type": "lora"}, "set finetuning_type: freeze"),
        ({"mixup_alpha": 0.1, "action_decoder_path": "x"}, "remove action_decoder_path, mixup_alpha"),
        ({"augment_flip": 0.5}, "remove augment_crop"),
        ({"head_sweep_decoder_types": "transformer"}, "head_sweep_decoder_types"),
    ],
)
def test_what_does_not_go_with_a_sweep(make_config, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_config(**SWEEP | settings)


def test_data_without_validation_clips_are_refused(make_config, sharded_index, tmp_path):
    index = sharded_index.model_copy(update={"num_clips": {"train": 12, "val": 0}})

    with pytest.raises(ConfigError, match="set val_size or eval_dataset"):
        train_model(make_config(**SWEEP), index=index, output_dir=tmp_path / "out")
