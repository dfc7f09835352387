import pytest

from ivcp.training.result import TrainingResult


@pytest.mark.parametrize(
    ("loss", "accuracy", "summary"),
    [
        (0.25, None, "40 steps, mean loss 0.250"),
        (0.25, 0.9, "40 steps, mean loss 0.250, validation top-1 0.900"),
        (None, 0.9, "40 steps, no step was left to train, validation top-1 0.900"),
    ],
)
def test_what_a_training_came_to(loss, accuracy, summary):
    result = TrainingResult(
        steps=40, epochs=2.0, train_clips=9, val_clips=3, train_loss=loss, val_top1_accuracy=accuracy, seconds=1.0
    )
    assert result.summary == summary
