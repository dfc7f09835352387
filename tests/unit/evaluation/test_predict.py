from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from ivcp.data.prepared.sample import Sample
from ivcp.evaluation.predict import Disturbed, predict_split, prediction_rows, softmax
from ivcp.inference.finite import NonFiniteError
from tests.unit.evaluation.predicted import PAIR_LABELS, clip, failed_clip


def _order(prepared: Sample) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in prepared.media[0].frames]


def _first_frame_decides(samples, batches, *, num_workers=0) -> Iterator[tuple[torch.Tensor, Sequence[Sample]]]:
    """Class 0 when the clip starts with frame 0, class 1 when it starts with its last one, else class 2."""
    for batch in batches:
        clips = [samples[position] for position in batch]
        yield torch.eye(3)[[{0: 0, 5: 1}.get(_order(prepared)[0], 2) for prepared in clips]], clips


def disturbed(sample: Sample, kind, *, seed: int = 0) -> Sample:
    return Disturbed([sample], kind, seed)[0]


def test_reversed_frames_run_backwards():
    assert _order(disturbed(clip("d:0", 0), "reversed")) == [5, 4, 3, 2, 1, 0]


def test_the_middle_frame_is_repeated():
    assert _order(disturbed(clip("d:0", 0), "middle")) == [3] * 6


def test_shuffled_frames_are_a_permutation_that_repeats():
    long = clip("d:0", 0, num_frames=16)
    first, again = disturbed(long, "shuffled", seed=1), disturbed(long, "shuffled", seed=1)
    assert sorted(_order(first)) == list(range(16))
    assert _order(first) == _order(again) != list(range(16))
    assert _order(first) != _order(disturbed(long, "shuffled", seed=2))
    assert _order(first) != _order(disturbed(clip("d:1", 0, num_frames=16), "shuffled", seed=1))


def test_disturbing_leaves_tokens_and_the_clip_itself_alone():
    original = clip("d:0", 0)
    changed = disturbed(original, "reversed")
    assert changed.input_ids is original.input_ids
    assert _order(original) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_every_clip_is_predicted_once_and_in_order(batch_size: int):
    clips = [clip(f"d:{number}", number % 3, num_frames=4 + number) for number in range(5)]
    found = predict_split(_first_frame_decides, clips, num_classes=3, batch_size=batch_size)
    assert found.clip_ids == tuple(f"d:{number}" for number in range(5))
    assert found.labels.tolist() == [0, 1, 2, 0, 1]
    assert found.num_frames.tolist() == [4, 5, 6, 7, 8]
    assert found.logits.shape == (5, 3)
    assert found.predictions.tolist() == [0] * 5


def test_logits_that_are_not_finite_are_no_prediction():
    """Else all of them are class 0, and the model's accuracy is the share of that class."""

    def diverged(samples, batches, *, num_workers=0):
        for logits, clips in _first_frame_decides(samples, batches):
            yield torch.where(torch.tensor([[c.sample_id in ("d:1", "d:4")] for c in clips]), torch.nan, logits), clips

    clips = [clip(f"d:{number}", 0) for number in range(6)]
    with pytest.raises(NonFiniteError, match=r"runs/a: .* 2 of 6 clips are not finite \(d:1 \(d:1.mp4\), d:4 "):
        predict_split(diverged, clips, num_classes=3, batch_size=4, source="runs/a")


def test_disturbed_frames_reach_the_model():
    found = predict_split(_first_frame_decides, [clip("d:0", 0)], num_classes=3, batch_size=2, disturb="reversed")
    assert found.predictions.tolist() == [1]


def test_rows_hold_decoded_and_failed_clips():
    predicted = predict_split(
        _first_frame_decides, [clip("d:0", 1)], num_classes=3, batch_size=2, failed=[failed_clip("d:9", 2)]
    )
    decoded, failed = prediction_rows(predicted, PAIR_LABELS)
    assert (decoded.clip_id, decoded.label_name, decoded.predicted_name) == ("d:0", "stand", "sit")
    assert decoded.logits == (1, 0, 0)
    assert decoded.confidence == pytest.approx(float(np.e / (np.e + 2)))
    assert (failed.clip_id, failed.prediction, failed.confidence, failed.logits) == ("d:9", None, 0, ())


def test_softmax_stands_large_logits():
    assert softmax(np.array([[1000.0, 1000.0]], dtype=np.float32)).tolist() == [[0.5, 0.5]]
