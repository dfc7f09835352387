from dataclasses import replace

import numpy as np
import pytest
from torch.utils.data import DataLoader

from ivcp.data.prepared.sample import Medium, Sample
from ivcp.records import Labels
from ivcp.settings import AugmentationConfig
from ivcp.training.augmentation import AugmentationError, AugmentedSamples, augment
from tests.samples import plain_sample

LABELS = Labels(label_names=("turn_left", "wave"))
ALL = AugmentationConfig(augment_crop=0.5, augment_flip=0.5, augment_color_jitter=0.4)


def medium(candidates=1) -> Medium:
    rows, columns = np.mgrid[0:24, 0:32]
    frames = np.stack(
        [np.stack([rows * 8, columns * 6, np.full_like(rows, 10 * i)], axis=-1) for i in range(4 * candidates)]
    )
    return Medium(frames.astype(np.uint8), frame_candidates=candidates)


def clip(number=0, label=1) -> Sample:
    tokens = np.zeros(3, dtype=np.int64)
    return plain_sample(sample_id=f"d:{number}", label=label, frames=medium().frames, input_ids=tokens)


def pixels(sample: Sample) -> np.ndarray:
    return sample.media[0].frames


def frames_of(settings, seed=0, may_flip=True, **changes):
    return augment(medium(**changes), settings, may_flip=may_flip, rng=np.random.default_rng(seed)).frames


def test_shape_and_type_stay():
    frames = frames_of(ALL)

    assert (frames.shape, frames.dtype) == ((4, 24, 32, 3), np.uint8)
    assert not np.array_equal(frames, medium().frames)
    assert np.array_equal(frames_of(AugmentationConfig()), medium().frames)


def test_flips_are_mirrored_and_some_labels_never_are():
    settings = AugmentationConfig(augment_flip=1.0, augment_no_flip_labels=("turn_left",))
    clips = AugmentedSamples([clip(label=0), clip(label=1)], settings, labels=LABELS, seed=0)

    assert np.array_equal(pixels(clips[0]), medium().frames)
    assert np.array_equal(pixels(clips[1]), medium().frames[:, :, ::-1])


def test_a_label_that_does_not_exist_is_named():
    settings = AugmentationConfig(augment_flip=0.5, augment_no_flip_labels="turn_right")
    with pytest.raises(AugmentationError, match="augment_no_flip_labels names turn_right, the classes are turn_left"):
        AugmentedSamples([clip()], settings, labels=LABELS, seed=0)


def test_crops_keep_at_least_their_share():
    """Rows and columns grow evenly in the picture: what a crop shows of them is its size."""
    for seed in range(20):
        frame = frames_of(AugmentationConfig(augment_crop=0.5), seed=seed)[0].astype(float)
        rows = (frame[..., 0].max() - frame[..., 0].min()) / (23 * 8)
        columns = (frame[..., 1].max() - frame[..., 1].min()) / (31 * 6)
        assert 0.4 < rows * columns < 1.01
        assert rows == pytest.approx(columns, abs=0.1)


def test_all_frames_of_a_clip_change_alike():
    still = replace(medium(), frames=np.repeat(medium().frames[:1], 4, axis=0))
    frames = augment(still, ALL, may_flip=True, rng=np.random.default_rng(3)).frames

    assert np.array_equal(frames, np.repeat(frames[:1], 4, axis=0))


def test_temporal_jitter_takes_one_stored_frame_per_moment_in_order():
    settings = AugmentationConfig(augment_temporal_jitter=True)
    seen = np.array([frames_of(settings, seed=seed, candidates=3)[:, 0, 0, 2] // 10 for seed in range(30)])

    assert (seen // 3 == np.arange(4)).all()
    assert all(set(seen[:, moment] % 3) == {0, 1, 2} for moment in range(4))


def test_changes_depend_on_seed_epoch_clip_and_draw():
    clips = AugmentedSamples([clip(0), clip(1)], ALL, labels=LABELS, seed=0)
    first = pixels(clips[0])

    assert np.array_equal(pixels(clips[0]), first)
    assert not np.array_equal(pixels(clips[1]), first)
    assert not np.array_equal(pixels(clips[0 + len(clips)]), first)
    assert not np.array_equal(pixels(AugmentedSamples(clips.samples, ALL, labels=LABELS, seed=1)[0]), first)
    clips.set_epoch(1)
    assert not np.array_equal(pixels(clips[0]), first)
    clips.set_epoch(0)
    assert np.array_equal(pixels(clips[0]), first)


def _only(items):
    return pixels(items[0])


def test_worker_processes_that_live_on_see_the_epoch():
    clips = AugmentedSamples([clip(0)], ALL, labels=LABELS, seed=0)
    loader = DataLoader(clips, num_workers=1, persistent_workers=True, collate_fn=_only)
    epochs = []
    for epoch in range(2):
        clips.set_epoch(epoch)
        epochs.append(next(iter(loader)))
        assert np.array_equal(epochs[-1], pixels(clips[0]))

    assert not np.array_equal(*epochs)
