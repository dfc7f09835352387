import base64
import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ivcp.evaluation.calibration import fit_calibration, measure_confidence
from ivcp.evaluation.confidence_plot import draw_confidence
from ivcp.evaluation.confusion_plot import draw_confusion_matrix
from ivcp.evaluation.measure import measure, measure_disturbed
from ivcp.evaluation.predict import PredictedSplit
from ivcp.evaluation.report import film_strip, worst_mistakes, write_class_table, write_report
from ivcp.records import Labels
from ivcp.records.evaluation import EvaluationMetrics, GateVerdict
from tests.unit.evaluation.calibrations import drawn
from tests.unit.evaluation.predicted import PAIR_LABELS, clip, failed_clip, predicted_split


def _metrics(predicted: PredictedSplit, labels: Labels = PAIR_LABELS) -> EvaluationMetrics:
    return EvaluationMetrics(
        **measure(predicted, labels=labels, majority_label=0).model_dump(),
        split="test",
        model_dir="/models/a",
        disturbed=(measure_disturbed(predicted, labels=labels, kind="reversed"),),
        champion=None,
        gate=GateVerdict(passed=False, reasons=("top-1 accuracy 0.500 is below min_top1_accuracy 0.900",)),
        test_fingerprint="t",
        prepared_fingerprint="p",
        data_fingerprint="d",
        seconds=1.0,
    )


def test_the_report_holds_everything_and_refers_to_nothing(tmp_path: Path):
    predicted = predicted_split([0, 1], [[3, 0, 0], [2, 0, 0]], failed=[failed_clip("d:<b>9", 2)])
    picture, report = tmp_path / "confusion.png", tmp_path / "report.html"
    metrics = _metrics(predicted)
    draw_confusion_matrix(metrics.confusion_matrix, label_names=PAIR_LABELS.label_names, path=picture, title="test")
    write_report(
        report,
        metrics=metrics,
        mistakes=worst_mistakes(predicted, [clip("d:0", 0), clip("d:1", 1)], PAIR_LABELS),
        failed=predicted.failed,
        confusion_picture=picture,
        title="Evaluation of run 7",
    )
    html = report.read_text()
    for expected in (
        "Evaluation of run 7",
        "33.3 %",
        "Gate: refused",
        "is below min_top1",
        "d:&lt;b&gt;9",
        "truncated",
    ):
        assert expected in html
    assert html.count("data:image/png;base64,") == 1
    assert html.count("data:image/jpeg;base64,") == 1
    assert "http" not in html
    assert "<b>9" not in html


def test_people_see_the_measures_that_could_be_otherwise(tmp_path: Path):
    metrics = _metrics(predicted_split([0, 1], [[3, 0, 0], [2, 0, 0]]))
    assert [(measure.words, measure.tells) for measure in metrics.shown[:2]] == [
        ("top-1 accuracy", True),
        ("top-5 accuracy", False),
    ]
    draw_confusion_matrix(
        metrics.confusion_matrix, label_names=PAIR_LABELS.label_names, path=tmp_path / "c.png", title="test"
    )
    write_report(
        tmp_path / "report.html",
        metrics=metrics,
        mistakes=(),
        failed=(),
        confusion_picture=tmp_path / "c.png",
        title="Evaluation",
    )
    html = (tmp_path / "report.html").read_text()
    assert html.count('class="tile main"') == 1
    assert "always the most frequent class" in html
    assert "on the 2 clips of time-reversed pairs" in html
    assert "top-5 accuracy" not in html


def test_the_surest_mistakes_come_first():
    labels = [1] * 20 + [0]
    logits = [[1 + number / 10, 0, 0] for number in range(20)] + [[9, 0, 0]]
    clips = [clip(f"d:{number}", label) for number, label in enumerate(labels)]
    found = worst_mistakes(predicted_split(labels, logits), clips, PAIR_LABELS)
    assert [mistake.clip_id for mistake in found] == [f"d:{number}" for number in range(19, 7, -1)]
    assert found[0].predicted_name == "sit"
    assert found[0].label_name == "stand"
    assert found[0].confidence > found[1].confidence > found[0].label_confidence


@pytest.mark.parametrize(("num_frames", "shown"), [(3, 3), (8, 8), (30, 8)])
def test_a_film_strip_shows_up_to_eight_frames(num_frames: int, shown: int):
    uri = film_strip(clip("d:0", 0, num_frames=num_frames, size=12).media[0].frames)
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert image.size == (shown * 98 - 2, 96)


@pytest.mark.parametrize("num_classes", [2, 10, 101])
def test_confusion_matrices_of_all_sizes_fit_a_screen(num_classes: int, tmp_path: Path):
    matrix = np.random.default_rng(0).integers(0, 5, (num_classes, num_classes)) + 40 * np.eye(num_classes, dtype=int)
    path = tmp_path / "confusion.png"
    names = [f"a rather long name {number}" for number in range(num_classes)]
    draw_confusion_matrix(matrix.tolist(), label_names=names, path=path, title="test split")
    with Image.open(path) as image:
        assert 400 < image.width < 2200
        assert image.width / image.height == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("has_font", [True, False])
def test_chinese_names_are_drawn_or_replaced_by_ids(has_font: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A missing glyph would be a warning, and warnings are errors here."""
    if not has_font:
        monkeypatch.setattr("matplotlib.font_manager.get_font_names", lambda: ["DejaVu Sans"])
    path = tmp_path / "confusion.png"
    draw_confusion_matrix([[3, 1], [0, 4]], label_names=["坐下", "站起"], path=path, title="test split")
    assert path.stat().st_size > 1000


def test_the_class_table_is_csv(tmp_path: Path):
    metrics = _metrics(predicted_split([0, 1], [[3, 0, 0], [0, 2, 0]]))
    write_class_table(tmp_path / "per_class.csv", metrics.classes)
    with (tmp_path / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label_name"] for row in rows] == ["sit", "stand", "wave"]
    assert rows[0]["recall"] == "1.0"


@pytest.mark.parametrize(
    ("sure_accuracy", "expected"),
    [
        (0.9, ("An answer is called <b>unsure</b> below", "of the answers are sure", "at least 90.0 %")),
        (0.999, ("Every answer is called unsure", "99.9 %")),
        (None, ("from 200 clips of the",)),
    ],
)
def test_the_report_says_what_confidences_mean(tmp_path: Path, sure_accuracy: float | None, expected: tuple[str, ...]):
    predicted = drawn(200, temperature=2, seed=1)
    calibration = fit_calibration(drawn(200, temperature=2), split="val", sure_accuracy=sure_accuracy)
    confidence = measure_confidence(predicted, calibration=calibration)
    metrics = _metrics(predicted).model_copy(update={"confidence": confidence})
    draw_confusion_matrix(metrics.confusion_matrix, label_names="abc", path=tmp_path / "c.png", title="test")
    draw_confidence(confidence, split="test", path=tmp_path / "confidence.png")
    write_report(
        tmp_path / "report.html",
        metrics=metrics,
        mistakes=(),
        failed=(),
        confusion_picture=tmp_path / "c.png",
        title="Evaluation",
        confidence_picture=tmp_path / "confidence.png",
    )
    html = (tmp_path / "report.html").read_text()
    assert html.count("data:image/png;base64,") == 2
    for words in ("Can its confidence be believed?", *expected):
        assert words in html
    for value in (confidence.before, confidence.after):
        assert f"{100 * value.expected_calibration_error:.1f} %" in html
    assert ("right among sure answers" in html) == (sure_accuracy == 0.9)
    with Image.open(tmp_path / "confidence.png") as image:
        assert image.width > 1000


def test_confidences_without_calibration_are_drawn(tmp_path: Path):
    confidence = measure_confidence(drawn(5), calibration=None, why_not="there is no validation split")
    draw_confidence(confidence, split="test", path=tmp_path / "confidence.png")
    assert (tmp_path / "confidence.png").stat().st_size > 1000
