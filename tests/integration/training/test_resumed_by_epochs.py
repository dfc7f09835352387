"""A run that goes on with other processes or batches ends behind its epochs, at the rates of its schedule."""

import json
from pathlib import Path

import pytest

from ivcp.records import PreparedIndex
from tests.integration.training.test_distributed import column, run_all
from tests.integration.training.training_processes import train_once
from tests.integration.training_data import training_settings

RATE = 3e-3
TWO_EPOCHS = {"num_train_epochs": 2, "max_steps": -1, "eval_strategy": "no", "learning_rate": RATE}
"""Of 16 clips; the checkpoint is behind 24 of the 32."""
BEGUN = TWO_EPOCHS | {"save_steps": 6}
LEFT = {
    "two processes, the same batch": (2, {"per_device_train_batch_size": 2}, 2),
    "two processes, twice the batch": (2, {"per_device_train_batch_size": 4}, 1),
    "one process, twice the batch": (1, {"per_device_train_batch_size": 8}, 1),
    "one process, twice the batch by accumulation": (1, {"gradient_accumulation_steps": 2}, 1),
    "one process, half the batch": (1, {"per_device_train_batch_size": 2}, 4),
    "one process, a batch that does not divide the clips": (1, {"per_device_train_batch_size": 3}, 3),
}
"""Processes, settings, and the steps that the last half epoch takes."""


def train_alone(data: Path, name: str, **settings) -> dict:
    index = PreparedIndex.read(data / "index.json")
    return train_once(training_settings(data, data / name, **settings), index)


@pytest.fixture(scope="module")
def begun_alone(data) -> dict:
    """One process, four clips a step: four steps an epoch."""
    return train_alone(data, "begun", **BEGUN)


@pytest.fixture(scope="module")
def resumed(data, begun_alone) -> dict[str, dict]:
    checkpoint = str(data / "begun" / "checkpoint-6")
    runs = {
        name: training_settings(data, data / name, resume=checkpoint, **TWO_EPOCHS | settings)
        for name, (_, settings, _) in LEFT.items()
    }
    alone = {name for name, (processes, _, _) in LEFT.items() if processes == 1}
    together = run_all(data, {name: run for name, run in runs.items() if name not in alone}, processes=2)
    return together | {name: train_once(runs[name], PreparedIndex.read(data / "index.json")) for name in alone}


@pytest.mark.parametrize("name", LEFT)
def test_it_ends_behind_its_epochs_whatever_a_step_is(data, resumed, name):
    *_, left = LEFT[name]
    new = [row for row in resumed[name]["rows"] if "loss" in row and row["step"] > 6]
    state = json.loads((data / name / "trainer_state.json").read_text())

    assert len(new) == left
    assert state["epoch"] == 2.0
    assert state["global_step"] == state["max_steps"] == 6 + left
    # Linear to 0 over both epochs, of which a quarter is left.
    assert [row["learning_rate"] for row in new] == pytest.approx([RATE / 4 * (1 - n / left) for n in range(left)])


def test_the_same_batches_give_the_losses_of_an_uninterrupted_run(begun_alone, resumed):
    got = resumed["two processes, the same batch"]

    for key in ("loss", "grad_norm", "learning_rate"):
        assert column(got, key) == pytest.approx(column(begun_alone, key), rel=1e-4), key


def test_the_clips_that_are_left_are_those_that_were_not_seen(resumed):
    """The second half of the second epoch, in one step, whoever computes it."""
    wanted, *others = (resumed[name] for name, (_, _, left) in LEFT.items() if left == 1)

    for other in others:
        assert column(other, "loss")[-1] == pytest.approx(column(wanted, "loss")[-1], rel=1e-4)
        assert column(other, "grad_norm")[-1] == pytest.approx(column(wanted, "grad_norm")[-1], rel=1e-4)


def test_from_two_processes_to_one_and_on(data):
    """The steps of the first part are no measure of the third; ZeRO goes on with other batches too."""
    half = {"per_device_train_batch_size": 2}
    begun = {
        "ddp": training_settings(data, data / "two", **BEGUN | half | {"save_steps": 2}),
        "z2": training_settings(data, data / "two-z2", deepspeed="z2", **BEGUN | half),
        "z2 on": training_settings(
            data, data / "two-z2-on", deepspeed="z2", resume=str(data / "two-z2" / "checkpoint-6"), **TWO_EPOCHS
        ),
    }
    two = run_all(data, begun, processes=2)
    one = train_alone(data, "one", resume=str(data / "two" / "checkpoint-2"), **TWO_EPOCHS | half | {"save_steps": 1})
    again = train_alone(data, "again", resume=str(data / "one" / "checkpoint-10"), **TWO_EPOCHS)

    # Two steps of four clips, then twelve of two; or eight of two, and two of four.
    assert last_step(one) == 2 + 12
    assert last_step(again) == 2 + 8 + 2
    assert column(again, "learning_rate")[-2:] == pytest.approx([RATE / 4, RATE / 8])
    assert last_step(two["z2 on"]) == 6 + 1


def last_step(seen: dict) -> int:
    return [row["step"] for row in seen["rows"] if "loss" in row][-1]
