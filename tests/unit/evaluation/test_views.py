"""A classifier that is shown each clip in several views."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ivcp.data.prepared.sample import Sample
from ivcp.evaluation.evaluate import SplitEvaluation
from ivcp.evaluation.unseen import SplitClips
from ivcp.evaluation.views import cropped
from ivcp.records import PreparedIndex
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.settings import from_flat
from ivcp.stages.directory import load_directory
from ivcp.stages.loaded_model import LoadedModel
from tests.models import LABELS, PROMPT, save_tiny_adapter
from tests.prepared import write_shards
from tests.samples import sample_of

NUM_CLIPS, NUM_FRAMES, CANDIDATES = 6, 4, 3


def frames_of(number: int) -> np.ndarray:
    """All stored frames of a clip, three around each sampled moment; twice as wide as they are high."""
    return np.random.default_rng(number).integers(0, 256, (NUM_FRAMES * CANDIDATES, 32, 64, 3)).astype(np.uint8)


def sample(model: LoadedModel, number: int, frames: np.ndarray) -> Sample:
    return sample_of(
        model.processor, frames, label=number % 3, sample_id=f"d:{number}", source="/gone.mp4", messages=PROMPT
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("adapter")
    return load_directory(save_tiny_adapter(folder / "adapter", base=folder / "base"))


@pytest.fixture(scope="module")
def index(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> PreparedIndex:
    def stored(number: int) -> Sample:
        own = sample(model, number, frames_of(number)[1::CANDIDATES])
        (medium,) = own.media
        return own.with_media([replace(medium, frames=frames_of(number), frame_candidates=CANDIDATES)])

    return PreparedIndex(
        fingerprint="prepared",
        **write_shards(tmp_path_factory.mktemp("clips"), [("test", stored(number)) for number in range(NUM_CLIPS)]),
        labels=LABELS,
        video=model.config.video,
        stage="action_cls",
        special_tokens=("<ACTION>",),
        prompts=(PROMPT,),
        num_clips={"test": NUM_CLIPS},
        label_counts={"test": (2, 2, 2)},
        failed=(),
        max_tokens=40,
        mean_tokens=40.0,
        data_fingerprint="data",
    )


def measured(model: LoadedModel, index: PreparedIndex, **settings: Any) -> EvaluationMetrics:
    unseen = SplitClips.of(index, "test").unseen_by(model.seen)
    config = from_flat({"compare_with_champion": False, "baselines": ["majority"], **settings})
    evaluation = SplitEvaluation(config, model=model, index=index, unseen=unseen, split="test")
    return evaluation.metrics(evaluation.predict())


def test_averaged_logits_are_those_of_the_views(model: LoadedModel, index: PreparedIndex):
    """Each view as a clip of its own, predicted one by one."""
    crops = [lambda f: f[:, :, :32], lambda f: f[:, :, 16:48], lambda f: f[:, :, 32:]]
    guesses = []
    for number in range(NUM_CLIPS):
        views = [crop(frames_of(number)[view::CANDIDATES]) for view in range(CANDIDATES) for crop in crops]
        samples = [sample(model, number, np.ascontiguousarray(view)) for view in views]
        logits = [next(iter(model.predict([one], [[0]])))[0][0].numpy().astype(np.float64) for one in samples]
        guesses.append(int(np.mean(logits, axis=0).argmax()))
    found = measured(model, index, test_num_clips=3, test_num_crops=3).multi_view
    assert found is not None
    assert found.name == "3 x 3"
    assert found.top1_accuracy == np.mean(np.array(guesses) == np.arange(NUM_CLIPS) % 3)


def test_all_else_is_of_the_one_view_that_the_predictor_sees(model: LoadedModel, index: PreparedIndex):
    one, several = (measured(model, index, test_num_clips=number) for number in (1, 3))
    assert one.multi_view is None
    assert several.multi_view is not None
    assert several.multi_view.gain == pytest.approx(several.multi_view.top1_accuracy - one.top1_accuracy)
    same = several.model_copy(update={"multi_view": None, "seconds": one.seconds})
    assert same == one
    assert several.headline().keys() - one.headline().keys() == {"views_3x1_top1_accuracy", "views_3x1_gain"}


def test_clips_that_were_prepared_for_other_views(model: LoadedModel, index: PreparedIndex):
    with pytest.raises(ValueError, match="test_num_clips = 5, but these clips were prepared with 3 frames around each"):
        measured(model, index, test_num_clips=5)


def test_crops_are_squares_of_the_shorter_side():
    wide = np.arange(2 * 4 * 10 * 3).reshape(2, 4, 10, 3).astype(np.uint8)
    tall = wide.transpose(0, 2, 1, 3)
    for crop, start in (("first", 0), ("middle", 3), ("last", 6)):
        assert np.array_equal(cropped(wide, crop), wide[:, :, start : start + 4])
        assert np.array_equal(cropped(tall, crop), tall[:, start : start + 4])
    square = wide[:, :, :4]
    assert all(np.array_equal(cropped(square, crop), square) for crop in ("first", "middle", "last"))
