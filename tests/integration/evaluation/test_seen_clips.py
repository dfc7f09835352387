"""No model is measured on a clip that it has seen, however the rows change between runs and whoever is the champion."""

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ivcp.data.prepared.sample import Sample
from ivcp.data.problems import AnnotationError
from ivcp.data.seen_clips import SEEN_CLIPS_FILE, ClipIdentities, SeenClips
from ivcp.evaluation.evaluate import SplitEvaluation
from ivcp.evaluation.unseen import SplitClips
from ivcp.records import PreparedIndex
from ivcp.settings import from_flat
from ivcp.stages.directory import load_directory
from ivcp.stages.loaded_model import LoadedModel
from tests.changing_rows import LABELS, Row, changed, rows_of, split_clips, write
from tests.models import PROMPT, save_tiny_classifier
from tests.prepared import write_index
from tests.samples import sample_of

SEEDS, STEPS = 10, 20


class Recorder(LoadedModel):
    """A model that notes the clips it predicts."""

    def predict(self, samples: Any, batches: Iterable[Sequence[int]], *, num_workers: int = 0) -> Iterator[Any]:
        for logits, in_batch in super().predict(samples, batches, num_workers=num_workers):
            self.__dict__.setdefault("predicted", set()).update(sample.sample_id for sample in in_batch)
            yield logits, in_batch

    @property
    def predicted(self) -> set[str]:
        return self.__dict__.get("predicted", set())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_directory(save_tiny_classifier(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def index(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> PreparedIndex:
    clips = [_clip(model, Row(f"{n}.mp4", f"{n}", LABELS[n % 3], "g")) for n in range(3)]
    return write_index(tmp_path_factory.mktemp("clips"), clips, video=model.processor.video)


def _clip(model: LoadedModel, row: Row) -> Sample:
    content = int(hashlib.sha256(row.content.encode()).hexdigest(), 16)
    frames = np.random.default_rng(content).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
    return sample_of(
        model.processor,
        frames,
        label=LABELS.index(row.label),
        sample_id=row.content,
        source=row.file,
        messages=PROMPT,
    )


def _identities(rows: Sequence[Row]) -> ClipIdentities:
    return ClipIdentities.of([(hashlib.sha256(row.content.encode()).hexdigest(), row.group) for row in rows])


def _trained_model(model: LoadedModel, folder: Path, by_split: dict[str, list[Row]]) -> Recorder:
    """The same weights in the name of a model that was trained and chosen on these splits."""
    folder.mkdir()
    seen = SeenClips(_identities(by_split["train"]), _identities(by_split["val"]))
    seen.write(folder / SEEN_CLIPS_FILE)
    return Recorder(model.stage, model.module, model.processor, model.info, folder)


def _split(data: Path, **settings: Any) -> dict[str, str]:
    """Where too little is left of what was given, as somebody who does what the message says."""
    try:
        return split_clips(data, test_size=0.25, val_size=0.15, **settings)
    except AnnotationError:
        return split_clips(data, test_size=0.25, val_size=0.15, **settings | {"resplit": True})


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_changes_nobody_is_measured_on_what_it_has_seen(
    model: LoadedModel, index: PreparedIndex, tmp_path: Path, seed: int
) -> None:
    """Rows are added, removed, renamed and reordered; a third of the runs gives all groups anew."""
    chance, rows = random.Random(seed), rows_of(16)
    champions: list[tuple[Recorder, dict[str, list[Row]]]] = []
    num_left_out = 0
    for step in range(STEPS):
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        write(data, rows)
        splits = _split(data, seed=chance.randint(0, 3), resplit=step > 0 and chance.random() < 0.3)
        by_split = {name: [row for row in rows if splits[row.content] == name] for name in ("train", "val", "test")}
        assert not {r.content for r in by_split["test"]} & {r.content for r in by_split["train"] + by_split["val"]}
        new = _trained_model(model, tmp_path / f"model {step}", by_split)
        clips = SplitClips([_clip(model, row) for row in by_split["test"]], _identities(by_split["test"]))
        unseen = clips.unseen_by(new.seen)
        assert unseen.left_out.total == 0  # no split that is cut here leaks
        evaluation = SplitEvaluation(
            from_flat({"compare_with_champion": False}), model=new, index=index, unseen=unseen, split="test"
        )
        predicted = evaluation.predict()
        assert new.predicted == {row.content for row in by_split["test"]}
        for champion, seen in chance.sample(champions, min(2, len(champions))):
            champion.predicted.clear()
            both = evaluation.on_same_clips(champion, predicted)
            known = {row.content for row in seen["train"] + seen["val"]}
            assert not champion.predicted & known
            groups = {row.group for row in seen["train"] + seen["val"]}
            left = [row for row in by_split["test"] if row.content not in known and row.group not in groups]
            assert champion.predicted == {row.content for row in left}
            num_left_out += 0 if both is None else both.left_out.total
            if both is not None:
                assert both.num_clips == len(left)
                assert both.left_out.total == len(by_split["test"]) - both.num_clips
                assert both.champion == both.new  # the same weights, on the same clips
        champions.append((new, by_split))
        rows = [replace(row) for row in changed(rows, chance, step)]
    assert num_left_out > 0
