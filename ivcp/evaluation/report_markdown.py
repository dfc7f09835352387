"""The evaluation report as Markdown: for merge requests, tickets and terminals."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ivcp.records.evaluation import EvaluationMetrics
from ivcp.records.evaluation_details import EvaluationDetails
from ivcp.records.markdown import escape
from ivcp.tracking.described import markdown_table

REPORT_MARKDOWN = "report.md"


def report_in_markdown(metrics: EvaluationMetrics, details: EvaluationDetails) -> str:
    """The whole report without its pictures; users' text is escaped."""
    return "\n\n".join(_parts(metrics, details)) + "\n"


def _parts(metrics: EvaluationMetrics, details: EvaluationDetails) -> Iterator[str]:
    yield f"# Evaluation of {escape(metrics.model_dir)}"
    yield escape(metrics.measured_on)
    yield f"**Gate: {'passed' if metrics.gate.passed else 'refused'}**"
    yield "\n".join(f"- {escape(reason)}" for reason in metrics.gate.reasons)
    figures = [
        (shown.words, _percent(shown.value), shown.interval.words if shown.interval else "")
        for shown in metrics.shown
        if shown.tells and shown.value is not None
    ]
    yield markdown_table(("figure", "value", "interval of 95 %"), figures)
    if metrics.baselines:
        yield "## Without training, or with less"
        rows = [(row.words, _percent(row.top1_accuracy), _percent(row.gain)) for row in metrics.baselines]
        yield markdown_table(("baseline", "top-1", "this model is better by"), rows)
    if metrics.champion and (flips := metrics.champion.flips):
        yield "## Against the champion, clip by clip"
        yield (
            f"{flips.num_gained} clips only this model recognises, {flips.num_lost} only the champion, of "
            f"{flips.num_clips}; McNemar's exact test: p = {flips.p_value:.3g}"
        )
        rows = [(row.label_name, str(row.num_gained), str(row.num_lost)) for row in flips.classes]
        yield markdown_table(("class", "gained", "lost"), rows)
    yield "## Classes"
    classes = [
        (row.label_name, _percent(row.recall if row.support else None), _percent(row.precision), str(row.support))
        for row in metrics.classes
    ]
    yield markdown_table(("class", "recall", "precision", "clips"), classes)
    if details.confused:
        yield "## Taken for another"
        rows = [(row.label_name, row.predicted_name, str(row.num_clips)) for row in details.confused]
        yield markdown_table(("class", "answered", "clips"), rows)
    if details.label_issues:
        yield "## Labels to look at"
        rows = [
            (row.clip_id, row.label_name, f"{row.suggested_name} {_percent(row.suggested_probability)}")
            for row in details.label_issues
        ]
        yield markdown_table(("clip", "labelled", "the model says"), rows)
    yield "## What was trained"
    yield markdown_table(("", ""), _origin(metrics, details))
    if details.settings:
        yield "Settings that are no defaults:"
        yield markdown_table(("setting", "value"), [(key, _text(value)) for key, value in details.settings.items()])


def _origin(metrics: EvaluationMetrics, details: EvaluationDetails) -> list[tuple[str, str]]:
    return [
        ("base model", details.base_model or "–"),
        ("data sets", ", ".join(details.data_sets) or "–"),
        ("clips", ", ".join(f"{count} {split}" for split, count in details.num_clips.items())),
        ("prepared clips", metrics.prepared_fingerprint),
        ("annotations", metrics.data_fingerprint),
        (f"{metrics.split} split", metrics.test_fingerprint),
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
