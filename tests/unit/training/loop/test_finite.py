"""Runs whose numbers are not finite: a learning rate that diverges, a clip of NaN pixels."""

import math
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ivcp.inference.finite import NonFiniteError
from ivcp.stages.directory import load_directory
from ivcp.training.checkpoints.folder import whole_checkpoints
from ivcp.training.loop.finite import CLIPS, FiniteSteps, last_good_checkpoint
from ivcp.training.result import run_trainer

DIVERGES = {"learning_rate": 1e25, "lr_scheduler_type": "constant", "max_grad_norm": 0}


def spoil(trainer, clip, *, from_step=0):
    """Gives a training clip pixels of NaN."""
    collate = trainer.data_collator

    def spoiled(samples):
        batch = collate(samples)
        if trainer.state.global_step >= from_step and any(sample.sample_id == clip for sample in samples):
            batch["pixel_values_videos"] = batch["pixel_values_videos"] * math.nan
        return batch

    trainer.data_collator = trainer.train_collate = spoiled


def named_clips(message):
    return set(re.findall(r"clips:\d+ \(\d+\.mp4\)", message))


@pytest.mark.parametrize("settings", [{}, {"finetuning_type": "full"}, {"bf16": True}, {"tokens_per_batch": 100}])
def test_a_run_that_diverges_ends_at_the_step_and_writes_nothing(make_trainer, tmp_path, settings):
    with pytest.raises(NonFiniteError) as raised:
        run_trainer(make_trainer(**DIVERGES, **settings))

    message = str(raised.value)
    assert message.startswith(("step 1 has a gradient norm of", "step 2 has a loss of nan"))
    assert 2 <= len(named_clips(message)) <= 3
    assert "Lower learning_rate" in message
    assert "there is no checkpoint from before" in message
    assert not list((tmp_path / "adapter").iterdir())


def test_the_last_good_checkpoint_is_named_and_is_good(make_trainer, tmp_path, prepared_clips):
    trainer = make_trainer(save_steps=1, num_train_epochs=2)
    spoil(trainer, "clips:7", from_step=2)
    with pytest.raises(NonFiniteError) as raised:
        run_trainer(trainer)

    step = int(re.match(r"step (\d+) has a loss of nan", str(raised.value))[1])
    last = tmp_path / "adapter" / f"checkpoint-{step - 1}"
    assert step > 2
    assert "clips:7 (7.mp4)" in named_clips(str(raised.value))
    assert f"the last good checkpoint is {last}: begin from its weights with adapter_name_or_path: {last}" in str(
        raised.value
    )
    assert "resume_from_checkpoint: true" in str(raised.value)
    assert whole_checkpoints(tmp_path / "adapter")[-1] == last
    assert load_directory(last).outputs(prepared_clips[12:]).isfinite().all()


def test_of_accumulated_batches_the_one_is_named(make_trainer):
    trainer = make_trainer(gradient_accumulation_steps=4, per_device_train_batch_size=1)
    spoil(trainer, "clips:4")
    with pytest.raises(NonFiniteError) as raised:
        run_trainer(trainer)

    assert named_clips(str(raised.value)) == {"clips:4 (4.mp4)"}


def test_a_gradient_that_is_not_finite_ends_the_run_though_the_loss_is(make_trainer):
    trainer = make_trainer()
    trainer.model.action_token_row.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NonFiniteError, match=r"step 1 has a gradient norm of (nan|inf)") as raised:
        run_trainer(trainer)

    assert len(named_clips(str(raised.value))) == 3


def losses(rows):
    return [row["loss"] for row in rows if "loss" in row]


def with_scaler(trainer, scale):
    """float16 with torch's own loss scaler, which accelerate gives to GPUs only."""
    trainer.accelerator.native_amp = True
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return trainer


def test_steps_that_the_loss_scaler_leaves_out_are_no_error(make_trainer):
    trainer = with_scaler(make_trainer(fp16=True, num_train_epochs=4), 2.0**24)  # behind float16's largest number
    before = trainer.model.action_token_row.detach().clone()
    run_trainer(trainer)

    norms = [row["grad_norm"] for row in trainer.state.log_history if "grad_norm" in row]
    assert not math.isfinite(norms[0])
    assert math.isfinite(norms[-1])
    assert all(map(math.isfinite, losses(trainer.state.log_history)))
    assert not torch.equal(trainer.model.action_token_row, before)
    assert trainer.model.action_token_row.isfinite().all()


def test_a_loss_that_is_not_finite_is_an_error_under_the_loss_scaler_too(make_trainer):
    trainer = with_scaler(make_trainer(fp16=True), 1.0)
    spoil(trainer, "clips:4")
    with pytest.raises(NonFiniteError, match="has a loss of nan"):
        run_trainer(trainer)


def test_no_scale_helps_a_gradient_that_always_overflows(make_trainer):
    trainer = with_scaler(make_trainer(fp16=True, max_steps=50), 2.0**16)
    trainer.model.action_token_row.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NonFiniteError, match=r"step 32 has a gradient norm .* \(32 steps in a row were left out"):
        run_trainer(trainer)


def test_fp16_without_a_scaler_checks_the_gradient(make_trainer):
    trainer = make_trainer(fp16=True)
    trainer.model.action_token_row.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NonFiniteError, match="step 1 has a gradient norm"):
        run_trainer(trainer)


@pytest.mark.parametrize("norm", [-1.0, math.inf, math.nan, torch.tensor(math.inf)])
def test_norms_as_deepspeed_and_torch_give_them(tmp_path, norm):
    steps = FiniteSteps(tmp_path)
    steps.saw(torch.tensor(0.5), ["a"])
    with pytest.raises(NonFiniteError, match=r"step 3 has a gradient .*\. Its clips: a\."):
        steps.check(norm, step=3, skips_overflow=False)


def test_a_step_without_a_norm_is_judged_by_its_losses(tmp_path):
    steps = FiniteSteps(tmp_path)
    steps.saw(torch.tensor(0.5), ["a"])
    steps.check(None, step=1, skips_overflow=False)
    steps.saw(torch.tensor(0.5), ["b"])
    steps.saw(torch.tensor(math.inf), ["c"])
    with pytest.raises(NonFiniteError, match=r"Its clips: c\. "):
        steps.check(None, step=2, skips_overflow=False)


def test_a_step_waits_once_for_the_device(make_trainer):
    """transformers' filter waited twice in each forward pass."""
    trainer = make_trainer(gradient_accumulation_steps=2, max_steps=2, save_strategy="no", eval_strategy="no")

    assert not trainer.args.logging_nan_inf_filter
    waits = []
    check = trainer._finite.check
    trainer._finite.check = lambda *args, **options: waits.append(1) or check(*args, **options)
    run_trainer(trainer)
    assert len(waits) == 2


def test_batches_carry_the_names_of_their_clips_and_the_model_does_not_see_them(make_trainer, prepared_clips):
    trainer = make_trainer(max_steps=1)
    batch = next(iter(trainer.get_train_dataloader()))

    assert len(batch[CLIPS]) == len(batch["labels"]) == 3
    assert CLIPS not in next(iter(trainer.get_eval_dataloader()))


def test_a_validation_with_outputs_that_are_not_finite_is_never_the_best(make_trainer, prepared_clips, tmp_path):
    trainer = make_trainer(
        load_best_model_at_end=True, val_size=6, save_strategy="epoch", num_train_epochs=3, learning_rate=1e-4
    )
    collate = trainer.eval_collate

    def spoiled(samples):
        batch = collate(samples)
        if trainer.state.epoch >= 2 and samples[0].sample_id == "clips:12":
            batch["pixel_values_videos"] = batch["pixel_values_videos"] * math.nan
        return batch

    trainer.eval_collate = spoiled
    trainer.args.per_device_eval_batch_size = 1
    with pytest.raises(NonFiniteError) as raised:
        run_trainer(trainer)

    assert "validation behind step 8: the outputs of 1 of 6 clips are not finite (clips:12 (12.mp4))" in str(
        raised.value
    )
    assert "the last good checkpoint is" in str(raised.value)
    assert trainer.state.best_global_step == 4
    assert [path.name for path in whole_checkpoints(tmp_path / "adapter")] == ["checkpoint-4"]


def test_a_metric_that_is_not_finite_is_named(make_trainer):
    class NoNumber(type(make_trainer().stage)):
        def metrics(self, predictions, targets):
            return {"top1_accuracy": math.nan}

    trainer = make_trainer(val_size=6)
    trainer.stage = NoNumber(trainer.stage.config)
    with pytest.raises(NonFiniteError, match="validation behind step 4 has eval_top1_accuracy nan"):
        run_trainer(trainer)


def test_weights_that_are_not_finite_are_not_written(make_trainer, tmp_path):
    trainer = make_trainer(save_steps=1)

    def overflow(args, state, control):
        with torch.no_grad():
            trainer.model.decoder.layers.bias[0] = math.inf
        return control

    trainer.callback_handler.on_optimizer_step = overflow
    with pytest.raises(NonFiniteError, match=r"step 1 left weights that are not finite \(decoder.layers.bias\)"):
        run_trainer(trainer)

    assert not list((tmp_path / "adapter").iterdir())


def test_a_checkpoint_that_an_earlier_version_wrote_with_nan_is_not_the_last_good_one(make_trainer, tmp_path):
    run_trainer(make_trainer())
    *_, before, last = whole_checkpoints(tmp_path / "adapter")
    file = last / "action_decoder.safetensors"
    weights = {name: torch.full_like(value, math.nan) for name, value in load_file(file).items()}
    save_file(weights, file)

    assert last_good_checkpoint(tmp_path / "adapter") == before
    assert last_good_checkpoint(tmp_path) is None


def test_a_lower_rate_reaches_a_run_by_its_weights_and_not_by_resuming(make_trainer, tmp_path):
    """What the message says: a scheduler's state has the rates that it began with."""
    run_trainer(make_trainer(lr_scheduler_type="constant", max_steps=2))
    checkpoint = str(tmp_path / "adapter" / "checkpoint-2")
    lower = {"lr_scheduler_type": "constant", "max_steps": 3, "learning_rate": 1e-4}
    resumed = make_trainer(output_dir=tmp_path / "resumed", **lower)
    run_trainer(resumed, resume_from=checkpoint)
    anew = make_trainer(output_dir=tmp_path / "anew", adapter_name_or_path=checkpoint, **lower)
    run_trainer(anew)

    def rates(trainer):
        return {row["learning_rate"] for row in trainer.state.log_history if row["step"] == 3 and "loss" in row}

    assert rates(resumed) == {3e-3}
    assert rates(anew) == {1e-4}


def test_logits_of_a_diverged_run_look_like_an_accuracy():
    """Why none of this may pass: the class of the largest NaN is class 0."""
    assert np.full((3, 4), math.nan).argmax(axis=1).tolist() == [0, 0, 0]
