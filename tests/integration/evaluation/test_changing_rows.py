"""From rows to the gate, with rows that change between two trainings: every step as the command line runs it."""

import json
from pathlib import Path
from typing import Any

import pytest

from ivcp import steps
from ivcp.data.problems import AnnotationError
from ivcp.data.seen_clips import SEEN_CLIPS_FILE
from ivcp.demo.tiny_model import build_tiny_model
from ivcp.records import Clip, read_lines
from ivcp.settings import RunConfig
from tests.data_sets import DataSet, make_clip, sharegpt_row

LABELS = ("run", "sit", "walk")


@pytest.fixture
def data(data_set: DataSet) -> DataSet:
    """Thirty clips of fifteen persons."""
    rows = []
    for number in range(30):
        make_clip(data_set.folder / f"{number}.mp4", seed=number, num_frames=4)
        rows.append(sharegpt_row(f"{number}.mp4", LABELS[number % 3], group=f"person {number // 2}"))
    return data_set.add("actions", rows)


@pytest.fixture
def configure(data: DataSet, tmp_path: Path, mlflow_uri: str):
    base = build_tiny_model(tmp_path / "base", warm_up=False)

    def make(name: str, **settings: Any) -> RunConfig:
        fixed = {
            "model_name_or_path": str(base),
            "output_dir": str(tmp_path / name),
            "finetuning_type": "full",
            "num_train_epochs": 1,
            "save_strategy": "no",
            "video_num_frames": 2,
            "video_min_pixels": 1024,
            "video_max_pixels": 1024,
            "preprocessing_num_workers": 1,
            "near_duplicate_frames": 0,
            "report_thumbnails": 0,
            "mlflow_tracking_uri": mlflow_uri,
        }
        return data.config(**fixed | settings)

    return make


def _remove_rows(data: DataSet, number: int) -> None:
    path = data.folder / "actions.json"
    path.write_text(json.dumps(json.loads(path.read_text())[number:]))


def _clips(config: RunConfig, *splits: str) -> set[str]:
    clips = read_lines(steps.validated_dir(config) / "annotations.jsonl", Clip)
    return {Path(str(clip.video)).name for clip in clips if clip.split in splits}


def test_a_challenger_meets_the_champion_on_clips_that_neither_has_seen(data: DataSet, configure) -> None:
    cut = {"test_size": 0.3, "val_size": 0.2}
    champion = configure("champion", **cut)
    steps.train(champion)
    steps.export(champion)
    model = Path(champion.train.output_dir) / "model"
    assert (model / SEEN_CLIPS_FILE).is_file()
    clips = len(_clips(champion, "test"))
    assert f"| test | {clips} | 0 | 2 | 1 |" in (model / "README.md").read_text()
    assert f"Measured on {clips} clips of the test split." in (model / "README.md").read_text()
    trained = _clips(champion, "train")

    _remove_rows(data, 5)
    challenger = configure("challenger", **cut)
    steps.train(challenger)
    metrics = steps.evaluate(challenger)
    assert _clips(challenger, "test") <= _clips(champion, "test")
    assert metrics.knows_what_it_saw
    assert metrics.left_out.total == 0
    assert metrics.champion is not None
    assert (metrics.champion.how, metrics.champion.left_out.total) == ("evaluated", 0)
    assert metrics.champion.num_clips == metrics.num_clips == len(_clips(challenger, "test"))

    anew = configure("anew", **cut, resplit=True, seed=7)
    steps.train(anew)
    metrics = steps.evaluate(anew)
    seen = _clips(anew, "test") & trained
    assert seen
    assert metrics.left_out.total == 0
    assert metrics.champion is not None
    assert metrics.champion.left_out.trained_on == len(seen)
    assert metrics.champion.num_clips == metrics.num_clips - len(seen)
    assert f"left out are {len(seen)} of the" in metrics.gate.reasons[1]


def test_a_test_split_that_comes_after_the_training_is_no_way_in(data: DataSet, configure) -> None:
    steps.train(configure("adapter"))
    for resplit in (False, True):  # only a training is a reason to cut splits anew
        with pytest.raises(AnnotationError, match=r"test_size = 0.2: 15 of the 15 groups were given to the training"):
            steps.evaluate(configure("adapter", test_size=0.2, resplit=resplit))
    (data.folder / "group_splits.jsonl").unlink()
    with pytest.raises(ValueError, match=r"adapter has seen 6 of the 6 clips \(trained on 6, selected on 0\)"):
        steps.evaluate(configure("adapter", test_size=0.2))


def test_a_validation_split_that_chose_the_model_does_not_measure_it(configure, tmp_path: Path) -> None:
    chosen = {"val_size": 6, "load_best_model_at_end": True, "save_strategy": "epoch", "eval_strategy": "epoch"}
    with pytest.raises(ValueError, match="do_eval: there is no test split, and the validation split chooses"):
        steps.train(configure("refused", **chosen, do_eval=True))
    steps.train(configure("chosen", **chosen))
    with pytest.raises(ValueError, match=r"chosen has seen 6 of the 6 clips \(trained on 0, selected on 6\)"):
        steps.evaluate(configure("chosen", **chosen))
    steps.export(configure("chosen", **chosen))
    assert (
        "## Results\n\nNot measured here: it was exported without"
        in (tmp_path / "chosen" / "model" / "README.md").read_text()
    )
    steps.train(configure("free", val_size=6))
    assert steps.evaluate(configure("free", val_size=6)).measured_on == "6 clips of the val split"
