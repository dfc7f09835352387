import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from ivcp.training.loop.resumption import Place, move_schedule


@pytest.mark.parametrize("accumulation", [1, 2, 3, 4])
@pytest.mark.parametrize("batches", [1, 3, 7, 10, 997])
def test_the_same_batches_are_at_the_same_place(batches, accumulation):
    """Whatever transformers writes as the epoch behind a step, the last one of an epoch being shorter."""
    steps = -(-batches // accumulation)
    for done in range(1, 3 * steps):
        epochs, begun = divmod(done, steps)
        epoch = epochs + min(begun * accumulation, batches) / batches
        place = Place.at(epoch, batches_per_epoch=batches, accumulation=accumulation)
        assert (place, place.steps_from_start(steps)) == (Place(epochs, begun), done)


@pytest.mark.parametrize(
    ("epoch", "batches", "accumulation", "expected"),
    [
        (0.0, 8, 1, Place(0, 0)),
        (1.5, 8, 1, Place(1, 4)),
        (1.5, 8, 4, Place(1, 1)),
        (1.5, 8, 3, Place(1, 1)),  # one of four batches comes again
        (1.5, 1, 1, Place(1, 0)),  # an epoch of one step begins again
        (2.0, 5, 2, Place(2, 0)),
    ],
)
def test_other_batches_are_at_the_last_step_before_it(epoch, batches, accumulation, expected):
    assert Place.at(epoch, batches_per_epoch=batches, accumulation=accumulation) == expected


def test_a_schedule_is_moved_as_if_it_had_made_its_steps():
    def made(moved: int, stepped: int) -> tuple[LambdaLR, list[float]]:
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (1.0, 0.1)]
        optimizer = torch.optim.SGD(groups)
        schedule = LambdaLR(optimizer, lambda step: 1 - step / 8)
        move_schedule(schedule, moved)
        for _ in range(stepped):
            optimizer.step()
            schedule.step()
        return schedule, [group["lr"] for group in optimizer.param_groups]

    (moved, rates), (walked, expected) = made(5, 2), made(0, 7)
    assert rates == pytest.approx(expected)
    assert moved.get_last_lr() == pytest.approx(walked.get_last_lr())
    assert moved.last_epoch == walked.last_epoch == 7


def test_a_schedule_of_the_validation_stays():
    schedule = ReduceLROnPlateau(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5))
    move_schedule(schedule, 5)

    assert schedule.last_epoch == 0
