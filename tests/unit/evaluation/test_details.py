"""What the report says besides the figures."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from ivcp.evaluation.confusion_plot import draw_confusion_matrix
from ivcp.evaluation.curve_picture import draw_curve
from ivcp.evaluation.details import most_uncertain, read_curves
from ivcp.evaluation.flips import answers_of, compare_answers
from ivcp.evaluation.label_issues import confident_classes, find_label_issues
from ivcp.evaluation.measure import measure, measure_disturbed
from ivcp.evaluation.report import clip_rows, rows_of, shown_clips, write_report
from ivcp.evaluation.report_markdown import report_in_markdown
from ivcp.records import Labels
from ivcp.records.comparison import ChampionComparison
from ivcp.records.evaluation import EvaluationMetrics, GateVerdict
from ivcp.records.evaluation_details import ConfusedPair, Curve, EvaluationDetails
from tests.unit.evaluation.predicted import clip, predicted_split

HOSTILE = "<script>alert(1)</script>"
LABELS = Labels(label_names=("sit|down", HOSTILE, "wave"))


def test_swapped_labels_are_found_and_the_most_doubtful_comes_first() -> None:
    """Thirty clean clips, and two whose labels were exchanged."""
    rng, truth = np.random.default_rng(0), np.arange(30) % 3
    logits = rng.normal(scale=0.3, size=(30, 3))
    logits[np.arange(30), truth] += 3.0
    logits[4, 1] += 3.0  # the surest of all
    labels = truth.copy()
    labels[4], labels[5] = 0, 1
    issues = find_label_issues(predicted_split(labels.tolist(), logits.tolist()), LABELS)
    assert [issue.clip_id for issue in issues] == ["d:4", "d:5"]
    assert (issues[0].label_name, issues[0].suggested_name) == ("sit|down", HOSTILE)


def test_a_clip_below_every_threshold_counts_for_no_class() -> None:
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    assert confident_classes(probabilities, np.array([0, 0, 1])).tolist() == [0, -1, 1]
    assert confident_classes(np.full((3, 2), [0.1, 0.9]), np.zeros(3, dtype=np.int64)).tolist() == [0, 0, 0]


def test_flips_are_counted_by_class_and_tested_exactly() -> None:
    truth = [0] * 6 + [1] * 4
    right, wrong = [5.0, 0, 0], [0, 0, 5.0]
    of_second = [0.0, 5.0, 0.0]
    new = predicted_split(truth, [right] * 6 + [wrong] + [of_second] * 3)
    champion = predicted_split(truth, [wrong] * 5 + [right] + [of_second] * 4)
    flips = compare_answers(new, answers_of(champion), LABELS)
    assert (flips.num_gained, flips.num_lost) == (5, 1)
    assert flips.p_value == pytest.approx(2 * binom.cdf(1, 6, 0.5))
    assert [(row.num_gained, row.num_lost) for row in flips.classes] == [(5, 0), (0, 1)]
    assert flips.clips[0].clip_id == "d:6"
    assert compare_answers(new, answers_of(new), LABELS).p_value == 1
    with pytest.raises(ValueError, match=r"no answer for 1 of .*: d:9"):
        compare_answers(new, answers_of(champion.only(np.arange(9), failed=())), LABELS)


def test_curves_come_from_the_trainers_state(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 1 / step, "learning_rate/head": 0.1} for step in range(1, 1001)]
    rows += [{"step": 1000, "eval_loss": float("nan")}]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": rows}))
    loss, rate = read_curves(tmp_path)
    assert (loss.name, rate.name) == ("loss", "learning_rate/head")
    assert len(loss.steps) <= 401
    assert (loss.steps[0], loss.steps[-1]) == (1, 1000)
    assert "step 1000" in draw_curve(loss)
    assert read_curves(tmp_path / "none") == ()


def test_the_least_certain_come_first() -> None:
    found = predicted_split([0, 0, 0], [[5, 0, 0], [1, 1, 0], [2, 1, 0]])
    assert most_uncertain(found).tolist() == [1, 2, 0]


def test_page_and_markdown_escape_names_and_say_nothing_of_pairs_where_there_are_none(tmp_path: Path) -> None:
    truth = [0, 0, 1, 2]
    predicted = predicted_split(truth, [[3, 0, 0], [0, 9, 0], [0, 3, 0], [2, 1, 0]])
    champion = predicted_split(truth, [[3, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 2]])
    metrics = EvaluationMetrics(
        **measure(predicted, labels=LABELS, majority_label=0).model_dump(),
        split="test",
        model_dir="/models/a",
        disturbed=(measure_disturbed(predicted, labels=LABELS, kind="reversed"),),
        champion=ChampionComparison(
            name="m",
            version=1,
            how="evaluated",
            detail="measured now",
            top1_accuracy=1.0,
            flips=compare_answers(predicted, answers_of(champion), LABELS),
        ),
        gate=GateVerdict(passed=True, reasons=()),
        test_fingerprint="t",
        prepared_fingerprint="p",
        data_fingerprint="d",
        seconds=1.0,
    )
    details = EvaluationDetails(
        base_model="base",
        data_sets=("gym",),
        num_clips={"train": 8, "test": 4},
        settings={"served_prompt": HOSTILE, "lora_rank": 4},
        curves=(Curve(name=HOSTILE, steps=(1, 2), values=(2.0, 1.0)),),
        confused=(ConfusedPair(label_name="wave", predicted_name="sit|down", num_clips=1),),
        label_issues=find_label_issues(predicted, LABELS),
    )
    picture, samples = tmp_path / "c.png", [clip(f"d:{row}", label) for row, label in enumerate(truth)]
    draw_confusion_matrix(metrics.confusion_matrix, label_names=LABELS.label_names, path=picture, title="test")
    write_report(
        tmp_path / "report.html",
        metrics=metrics,
        details=details,
        clips=clip_rows(predicted),
        mistakes=(),
        doubtful=shown_clips(predicted, rows_of(predicted, details.label_issues), samples, LABELS),
        failed=(),
        confusion_picture=picture,
        title="Evaluation",
    )
    html = (tmp_path / "report.html").read_text()
    assert HOSTILE not in html
    assert not [word for word in ("of 0<", "pair clips", "http://", "https://") if word in html]
    for expected in (
        "McNemar",
        "Labels to look at",
        "lora_rank",
        'data-cell="2,0"',
        "polyline",
        "prefers-color-scheme",
    ):
        assert expected in html
    markdown = report_in_markdown(metrics, details)
    assert HOSTILE not in markdown
    assert r"| sit\|down | 50.0 % |" in markdown
    assert "p = 0.5" in markdown
