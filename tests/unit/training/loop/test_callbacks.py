import logging
from types import SimpleNamespace

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from ivcp.training.loop.callbacks import LogLines, describe_step, time_left


@pytest.fixture
def lines(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="ivcp.training.loop.callbacks")
    tracked = []
    callback = LogLines(lambda metrics, step: tracked.append((step, metrics)))
    args = TrainingArguments(output_dir=str(tmp_path), disable_tqdm=True, report_to="none", use_cpu=True)

    def call(event, state, **options):
        getattr(callback, event)(args, state, TrainerControl(), **options)
        return [record.getMessage() for record in caplog.records]

    return SimpleNamespace(call=call, callback=callback, tracked=tracked)


def state_at(step, of=400, epoch=0.5):
    return TrainerState(global_step=step, max_steps=of, epoch=epoch)


@pytest.mark.parametrize(
    ("seconds", "done", "to_do", "left"),
    [(60.0, 30, 90, "0:03:00"), (10.0, 0, 90, None), (10.0, 5, 0, None), (3600.0, 1, 50, "2 days, 2:00:00")],
)
def test_time_left(seconds, done, to_do, left):
    assert time_left(seconds, done=done, to_do=to_do) == left


def test_a_row_says_how_far_the_training_is(lines):
    lines.call("on_train_begin", state_at(0))
    lines.callback._began -= 100  # as if the first 50 steps had taken so long
    [line] = lines.call("on_log", state_at(50), logs={"loss": 1.5, "learning_rate/lora": 0.1})

    assert line == "step 50 of 400 (epoch 0.50), 0:11:40 left: loss 1.5"
    assert lines.tracked == [(50, {"train/loss": 1.5, "train/learning_rate/lora": 0.1})]


def test_steps_before_a_resumption_took_no_time_of_this_run(lines):
    lines.call("on_train_begin", state_at(300))
    lines.callback._began -= 100
    [line] = lines.call("on_log", state_at(350), logs={"loss": 1.5})

    assert "0:01:40 left" in line


def test_a_line_comes_between_rows_that_are_far_apart(lines):
    lines.call("on_train_begin", state_at(0))
    assert lines.call("on_step_end", state_at(1)) == []
    lines.callback._began -= 100
    lines.callback._last_line -= 100

    assert lines.call("on_step_end", state_at(50)) == ["step 50 of 400 (epoch 0.50), 0:11:40 left"]
    assert len(lines.call("on_step_end", state_at(51))) == 1


def test_a_stage_that_trains_in_a_way_of_its_own_has_no_number_of_steps():
    assert describe_step(state_at(50, of=0, epoch=50.0)) == "50 (epoch 50.00)"


def test_a_resumed_run_that_was_finished_has_no_mean_loss(lines):
    lines.call("on_train_begin", state_at(400))
    [line] = lines.call("on_log", state_at(400), logs={"train_loss": 0.0, "train_runtime": 0.1})

    assert "train_loss" not in line
    assert lines.tracked == [(400, {"train/train_runtime": 0.1})]
