"""Validation, evaluation and the predictor compute in the same precision."""

import pytest
import torch

from ivcp.inference.compute import Compute
from ivcp.settings import TrainConfig
from ivcp.stages.directory import load_directory
from ivcp.training.result import run_trainer

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bf16": True},
        {"bf16": True, "finetuning_type": "full"},
        {"bf16": True, "finetuning_type": "full", "freeze_vision_tower": False},
        {"bf16": True, "finetuning_type": "freeze", "freeze_trainable_layers": 1},
        {"bf16": True, "action_decoder_type": "transformer"},
    ],
)
def test_a_directory_computes_what_validation_computed(make_trainer, prepared_clips, tmp_path, settings):
    trainer = make_trainer(max_steps=3, per_device_eval_batch_size=6, **settings)
    run_trainer(trainer)
    validated = torch.from_numpy(trainer.predict(prepared_clips[12:]).predictions)
    model = load_directory(tmp_path / "adapter")
    torch.testing.assert_close(model.outputs(prepared_clips[12:]), validated, atol=1e-5, rtol=0)
    assert model.precision == ("bfloat16" if settings else "float32")
    exact = load_directory(tmp_path / "adapter", dtype=torch.float32)
    assert exact.precision == "float32"
    assert torch.equal(exact.outputs(prepared_clips[12:]), model.outputs(prepared_clips[12:])) == (not settings)


@pytest.mark.parametrize(
    ("settings", "device", "expected"),
    [
        ({}, GPU, None),
        ({"bf16": True}, GPU, torch.bfloat16),
        ({"bf16": True}, CPU, torch.bfloat16),
        ({"fp16": True}, GPU, torch.float16),
        ({"fp16": True}, CPU, None),
    ],
)
def test_the_precision_of_training_on_another_device(settings, device, expected):
    assert Compute.as_trained(TrainConfig(**settings), device).autocast_dtype == expected
