import time

import pytest
import torch

from ivcp.settings import ConfigError
from ivcp.training.loop.meter import StepMeter, peak_memory_bytes
from ivcp.training.result import run_trainer


def batch(lengths, longest):
    return {"attention_mask": (torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)).long()}


def test_clips_tokens_and_padding_are_counted():
    meter = StepMeter(num_processes=2)
    meter.saw(batch([4, 2], 4))
    meter.saw(batch([1, 1], 2))
    time.sleep(0.02)
    row = meter.row()

    assert row["padding_share"] == pytest.approx(1 - 8 / 12)
    assert row["tokens_per_second"] / row["clips_per_second"] == pytest.approx(8 / 4)
    assert 0 < row["clips_per_second"] <= 2 * 4 / 0.02
    assert meter.row() == {}


def test_waiting_counts_and_pauses_do_not():
    meter = StepMeter()
    with meter.waiting():
        time.sleep(0.05)
    with meter.pause():
        time.sleep(0.3)
    meter.saw(batch([1], 1))

    assert meter.row()["data_wait_share"] > 0.5


def test_memory_is_in_bytes():
    before = peak_memory_bytes()
    held = torch.ones(64 * 2**20, dtype=torch.uint8)

    assert 100e6 < before < 100e9
    assert peak_memory_bytes() >= before
    assert held.numel() == 64 * 2**20


def test_rows_of_a_run_say_what_the_steps_cost_and_how_fast_each_part_learned(make_trainer):
    trainer = make_trainer(learning_rate=1e-3, action_decoder_learning_rate=1e-2, lr_scheduler_type="linear")
    run_trainer(trainer)

    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert len(rows) == 8
    for row in rows:
        assert {"grad_norm", "clips_per_second", "tokens_per_second", "data_wait_share"} <= set(row)
        assert row["padding_share"] == 0.0
        assert row["learning_rate/language_model"] == pytest.approx(row["learning_rate"])
        assert row["learning_rate/action_decoder"] == pytest.approx(10 * row["learning_rate"])
        assert row["learning_rate/action_token_row"] == pytest.approx(0.1 * row["learning_rate"])


def test_tensorboard_gets_the_rows(make_trainer, tmp_path):
    run_trainer(make_trainer(report_to="tensorboard", max_steps=2))

    [events] = (tmp_path / "adapter").rglob("events.out.tfevents.*")
    assert b"train/clips_per_second" in events.read_bytes()


def test_a_tracker_that_is_not_installed(make_trainer):
    with pytest.raises(ConfigError, match="report_to = wandb needs the package wandb: pip install wandb"):
        make_trainer(report_to="wandb")
