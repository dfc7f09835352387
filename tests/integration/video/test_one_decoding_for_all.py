"""Preparation, evaluation and the predictor see the same frames, whichever backend decodes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.preparation.prepare import prepare_clips
from ivcp.serving.decoding import ClipRequest, Decoders, ModelFiles, ReadClip
from ivcp.stages.directory import load_directory
from ivcp.validation.validate import validate_data
from ivcp.video.backends import Backend, has_torchcodec
from tests.data_sets import DataSet, sharegpt_row
from tests.models import PROMPT, save_tiny_classifier
from tests.videos import write_footage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_classifier(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize("backend", ["auto", "pyav", "decord", "torchcodec"])
def test_frames_are_the_same_in_every_step(
    model_dir: Path, data_set: DataSet, tmp_path: Path, backend: Backend
) -> None:
    if backend == "torchcodec" and not has_torchcodec():
        pytest.skip("torchcodec is not installed, or finds no FFmpeg libraries")
    names = ["a.mp4", "b.mkv", "c.avi", "d.mp4"]
    for number, name in enumerate(names):
        codec = "mpeg4" if name.endswith(".avi") else "libx264"
        write_footage(data_set.folder / name, codec=codec, num_frames=30 + 10 * number)
    rows = [sharegpt_row(name, number % 2, split="test") for number, name in enumerate(names)]
    for label in (0, 1):
        video = write_footage(data_set.folder / f"train{label}.mp4", num_frames=20 + label)
        rows.append(sharegpt_row(video.name, label, split="train"))
    model = load_directory(model_dir)
    settings = model.processor.video.model_copy(update={"video_backend": backend})
    config = data_set.add("actions", rows).config(
        **settings.model_dump(), model_name_or_path=str(model_dir), near_duplicate_frames=0
    )
    validate_data(config, tmp_path / "validated")
    places = {"validated_dir": tmp_path / "validated", "shards_uri": str(tmp_path / "shards")}
    index = prepare_clips(config, **places, index_path=tmp_path / "index.json")
    evaluated = {Path(clip.source).name: clip for clip in PreparedSamples(index, "test")}
    assert sorted(evaluated) == names

    chosen = "pyav" if backend == "auto" else backend
    files = ModelFiles(model_dir)  # what decodes there is the machine's choice
    with closing(Decoders([files], num_workers=1, timeout_seconds=60)) as decoders:
        for name in names:
            (clip,) = decoders.read(ClipRequest(files, data_set.folder / name, name, messages=PROMPT)).result()
            assert isinstance(clip, ReadClip)
            assert evaluated[name].media[0].backend == ("pyav" if name == "c.avi" else chosen)
            served = clip.sample
            assert np.array_equal(served.media[0].frames, evaluated[name].media[0].frames)
            assert served.media[0].seconds_per_frame == evaluated[name].media[0].seconds_per_frame
