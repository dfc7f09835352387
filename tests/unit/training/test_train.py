import json
import re
import shutil
from dataclasses import replace

import pytest
import torch

from ivcp.models.backbone_files import ModelFilesError
from ivcp.settings import ConfigError
from ivcp.stages.directory import load_directory
from ivcp.stages.registry import check_stage
from ivcp.training.build import build_trainer
from ivcp.training.checkpoints.output_dir import check_output_dir
from ivcp.training.result import run_trainer


def losses(trainer):
    return {row["step"]: row["loss"] for row in trainer.state.log_history if "loss" in row}


def weights(classifier):
    return {name: value.detach().clone() for name, value in classifier.named_parameters()}


@pytest.mark.parametrize("base_model_dir", ["qwen2_vl", "qwen3_vl"], indirect=True)
@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_adapter_decoder_and_row_move_and_the_rest_stays(make_trainer, finetuning_type):
    trainer = make_trainer(finetuning_type=finetuning_type, learning_rate=1e-3)
    before = weights(trainer.model)
    run_trainer(trainer)

    moved = {name for name, value in weights(trainer.model).items() if not torch.equal(value, before[name])}
    assert "action_token_row" in moved
    assert any(name.startswith("decoder.") for name in moved)
    assert not any("visual" in name for name in moved)
    backbone = {name for name in moved if name.startswith("backbone.")}
    assert backbone
    assert all("lora_" in name for name in backbone) == (finetuning_type == "lora")


def test_the_row_learns_at_its_scaled_rate(make_trainer):
    """Adam's first step is the learning rate in every coordinate, whatever the gradient's size."""
    trainer = make_trainer(action_token_lr_scale=0.25, max_steps=1, learning_rate=1e-2, lr_scheduler_type="constant")
    before = weights(trainer.model)
    run_trainer(trainer)

    after = weights(trainer.model)
    row = (after["action_token_row"] - before["action_token_row"]).abs().median()
    decoder = (after["decoder.layers.weight"] - before["decoder.layers.weight"]).abs().median()
    assert row.item() == pytest.approx(0.25 * 1e-2, rel=0.01)
    assert decoder.item() == pytest.approx(1e-2, rel=0.01)


@pytest.mark.parametrize("base_model_dir", ["qwen2_vl", "qwen3_vl"], indirect=True)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"finetuning_type": "full"},
        {"action_decoder_type": "mlp"},
        {"action_decoder_type": "transformer"},
        {"finetuning_type": "freeze"},
    ],
)
def test_final_directory_and_every_checkpoint_give_the_logits_training_saw(
    make_trainer, prepared_clips, tmp_path, settings
):
    trainer = make_trainer(**settings)
    seen = {}
    trainer.callback_handler.on_save = _after(
        trainer.callback_handler.on_save,
        lambda: seen.update({trainer.state.global_step: trainer.predict(prepared_clips[12:]).predictions}),
    )
    run_trainer(trainer)
    seen["final"] = trainer.predict(prepared_clips[12:]).predictions

    directories = {"final": tmp_path / "adapter"} | {
        step: tmp_path / "adapter" / f"checkpoint-{step}" for step in seen if step != "final"
    }
    assert len(directories) >= 4
    for key, directory in directories.items():
        reloaded = load_directory(directory).outputs(prepared_clips[12:])
        torch.testing.assert_close(reloaded, torch.from_numpy(seen[key]), atol=1e-5, rtol=0)


def _after(function, action):
    def wrapped(*args, **kwargs):
        result = function(*args, **kwargs)
        action()
        return result

    return wrapped


@pytest.mark.parametrize(
    "settings",
    [{"lora_dropout": 0.1}, {"finetuning_type": "full"}, {"action_loss": "focal", "class_weights": "inverse"}],
)
def test_resuming_from_the_middle_repeats_the_losses(make_trainer, tmp_path, settings):
    whole = make_trainer(**settings)
    run_trainer(whole)
    resumed = make_trainer(output_dir=tmp_path / "resumed", **settings)
    run_trainer(resumed, resume_from=str(tmp_path / "adapter" / "checkpoint-4"))

    expected = losses(whole)
    assert set(expected) == set(losses(resumed)) == set(range(1, 9))
    assert losses(resumed) == pytest.approx(expected, abs=1e-6)


def test_the_directory_says_what_a_training_clip_lasts(make_config, make_index, prepared_clips, tmp_path):
    """Windows of a timeline are as long; it is the median, which one long clip does not move."""
    lengths = [50, 50, 50, 50, 50, 5000]
    clips = [
        clip.with_media([replace(clip.media[0], total_frames=length, source_fps=25.0)])
        for clip, length in zip(prepared_clips, lengths, strict=False)
    ]
    trainer = build_trainer(
        make_config(), index=make_index(), samples={"train": clips, "val": clips}, output_dir=tmp_path / "adapter"
    )
    run_trainer(trainer)
    assert load_directory(tmp_path / "adapter").info.clip_seconds == 2.0


def test_same_seed_same_losses(make_trainer, tmp_path):
    first, second = make_trainer(), make_trainer(output_dir=tmp_path / "second")
    run_trainer(first)
    run_trainer(second)

    assert losses(first) == losses(second)
    other = make_trainer(output_dir=tmp_path / "third", seed=7)
    run_trainer(other)
    assert losses(other) != losses(first)


def test_computing_activations_again_changes_no_loss(make_trainer, tmp_path):
    kept = make_trainer(disable_gradient_checkpointing=True)
    run_trainer(kept)
    again = make_trainer(output_dir=tmp_path / "again", disable_gradient_checkpointing=False)
    run_trainer(again)

    assert any(getattr(module, "gradient_checkpointing", False) for module in again.model.modules())
    assert losses(again) == pytest.approx(losses(kept), abs=1e-6)


@pytest.mark.parametrize("base_model_dir", ["qwen2_vl", "qwen3_vl", "llava_next_video"], indirect=True)
def test_checkpointing_sends_no_gradient_through_a_frozen_tower(make_trainer):
    trainer = make_trainer(disable_gradient_checkpointing=False, max_steps=1)
    tower = trainer.model.backbone.get_base_model().get_encoder(modality="video")
    has_gradient = []
    for layer in tower.modules():
        layer.register_forward_hook(
            lambda _, inputs, output: has_gradient.append(getattr(output, "requires_grad", False))
        )
    run_trainer(trainer)

    assert len(has_gradient) > 10
    assert not any(has_gradient)


def test_accumulated_small_batches_equal_one_large_batch(make_trainer, tmp_path):
    large = make_trainer(per_device_train_batch_size=6, max_steps=2)
    run_trainer(large)
    small = make_trainer(
        output_dir=tmp_path / "small", per_device_train_batch_size=3, gradient_accumulation_steps=2, max_steps=2
    )
    run_trainer(small)

    assert losses(small) == pytest.approx(losses(large), abs=1e-4)


def test_the_best_checkpoint_is_kept(make_trainer, prepared_clips):
    trainer = make_trainer(
        load_best_model_at_end=True, val_size=6, save_strategy="epoch", num_train_epochs=3, learning_rate=5e-2
    )
    result = run_trainer(trainer)

    accuracies = [row["eval_top1_accuracy"] for row in trainer.state.log_history if "eval_top1_accuracy" in row]
    assert result.val_top1_accuracy == max(accuracies)


def test_the_test_split_is_never_looked_at(make_config, make_index, prepared_clips, tmp_path):
    class NeverRead:
        def __len__(self):
            return 6

        def __getitem__(self, index):
            raise AssertionError("training has read the test split")

    clips = {"train": prepared_clips[:12], "val": prepared_clips[12:], "test": NeverRead()}
    config = make_config(load_best_model_at_end=True, val_size=6, save_strategy="epoch", max_steps=4)
    result = run_trainer(build_trainer(config, index=make_index(), samples=clips, output_dir=tmp_path / "adapter"))

    assert (result.train_clips, result.val_clips) == (12, 6)
    assert result.val_top1_accuracy is not None


@pytest.mark.parametrize(
    "name", ["action_decoder.safetensors", "action_token.safetensors", "adapter_config.json", "labels.json"]
)
def test_an_incomplete_directory_is_refused(make_trainer, tmp_path, name):
    run_trainer(make_trainer(max_steps=1))
    (tmp_path / "adapter" / name).unlink()

    with pytest.raises(ModelFilesError, match=re.escape(name)):
        load_directory(tmp_path / "adapter")


def test_weights_can_be_read_by_whoever_reads_the_rest(make_trainer, tmp_path):
    """A predictor's pod may run as another user than training did."""
    run_trainer(make_trainer(max_steps=1))

    files = [path for path in (tmp_path / "adapter").iterdir() if path.is_file()]
    assert {path.suffix for path in files} >= {".json", ".safetensors"}
    assert len({path.stat().st_mode for path in files if path.suffix in (".json", ".safetensors")}) == 1


def test_resuming_from_an_incomplete_checkpoint_is_refused(make_trainer, tmp_path):
    run_trainer(make_trainer())
    checkpoint = tmp_path / "adapter" / "checkpoint-4"
    (checkpoint / "action_decoder.safetensors").unlink()

    with pytest.raises(ModelFilesError, match=r"action_decoder.safetensors missing"):
        run_trainer(make_trainer(output_dir=tmp_path / "resumed"), resume_from=str(checkpoint))


def test_an_untrained_decoder_is_refused(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.save_model(str(tmp_path / "untrained"))

    with pytest.raises(ModelFilesError, match="never trained"):
        load_directory(tmp_path / "untrained")


def test_a_decoder_for_other_labels_is_refused(make_trainer, tmp_path):
    run_trainer(make_trainer(max_steps=1))
    labels = tmp_path / "adapter" / "labels.json"
    labels.write_text(json.dumps({"label_names": ["dark", "half", "light"]}))

    with pytest.raises(ModelFilesError, match="labels and their order must agree"):
        load_directory(tmp_path / "adapter")


def test_training_starts_from_an_earlier_decoder(make_trainer, tmp_path):
    first = make_trainer(max_steps=2)
    run_trainer(first)
    second = make_trainer(output_dir=tmp_path / "second", action_decoder_path=str(tmp_path / "adapter"))

    assert torch.equal(second.model.decoder.layers.weight, first.model.decoder.layers.weight)
    with pytest.raises(ModelFilesError, match="no action decoder at"):
        make_trainer(output_dir=tmp_path / "third", action_decoder_path=str(tmp_path / "nowhere"))
    with pytest.raises(ModelFilesError, match="decoder_type linear instead of mlp"):
        make_trainer(
            output_dir=tmp_path / "third", action_decoder_path=str(tmp_path / "adapter"), action_decoder_type="mlp"
        )


def test_other_stages_are_read_and_refused(make_config):
    with pytest.raises(ConfigError, match="stage = detection: it cannot be trained here; choose from action_cls"):
        check_stage(make_config(stage="detection"))


def test_an_earlier_run_is_not_overwritten(make_config, tmp_path):
    output_dir = tmp_path / "adapter"
    check_output_dir(make_config(), output_dir)
    (output_dir / "adapter_model.safetensors").touch()
    (output_dir / "model_info.json").touch()

    with pytest.raises(FileExistsError, match="overwrite_output_dir"):
        check_output_dir(make_config(), output_dir)
    check_output_dir(make_config(overwrite_output_dir=True), output_dir)
    check_output_dir(make_config(resume_from_checkpoint=True), output_dir)
    shutil.rmtree(output_dir)
    output_dir.touch()
    with pytest.raises(PermissionError, match=r"output_dir: .* cannot be written"):
        check_output_dir(make_config(), output_dir)


def test_curves_are_drawn(make_trainer, tmp_path):
    run_trainer(make_trainer(plot_loss=True, max_steps=3))

    assert (tmp_path / "adapter" / "training_curves.png").stat().st_size > 5000
