from __future__ import annotations

import base64
import io
import re
import wave
from pathlib import Path

import numpy as np
import pytest

from ivcp.evaluation.language.report import EXAMPLES_SHOWN, choose_examples, write_language_report
from ivcp.records.language_evaluation import MetricComparison
from tests.language import sound_medium
from tests.unit.evaluation.language.measured import answer, measured
from tests.unit.evaluation.predicted import clip, failed_clip

WORDS = [f"word{number}" for number in range(40)]


def answers_of(count):
    """Of `count` answers, each has one more right word than the one before it, in an order of its own."""
    order = np.random.default_rng(0).permutation(count)
    return [answer(n, " ".join(WORDS[: right + 1]), " ".join(WORDS[:count])) for n, right in enumerate(order)], order


def clips(count):
    return [clip(f"d:{number}", 0, size=12) for number in range(count)]


def shown(kinds):
    return {kind.title: [example.answer.position for example in kind.examples] for kind in kinds}


def test_the_worst_the_best_and_random_ones_are_shown_each_once():
    answers, order = answers_of(30)
    found = shown(choose_examples(answers, clips(30), seed=1))
    by_rank = np.argsort(order).tolist()
    assert found["Best answers"] == by_rank[::-1][:EXAMPLES_SHOWN]
    assert found["Worst answers"] == by_rank[:EXAMPLES_SHOWN]
    drawn = found["Random answers"]
    assert len(drawn) == EXAMPLES_SHOWN
    assert not set(drawn) & {*found["Best answers"], *found["Worst answers"]}
    assert shown(choose_examples(answers, clips(30), seed=1)) == found
    assert shown(choose_examples(answers, clips(30), seed=2))["Random answers"] != drawn


@pytest.mark.parametrize("count", range(8))
def test_few_answers_are_all_shown_once(count):
    found = shown(choose_examples(answers_of(count)[0], clips(count), seed=0))
    assert sorted(position for positions in found.values() for position in positions) == list(range(count))
    assert all(found.values())


def test_the_page_shows_frames_question_answer_and_reference(tmp_path: Path):
    answers = [answer(0, "wave", "wave"), answer(1, "sit <b>down", "stand up", is_cut=True)]
    seen = clips(2)
    heard = sound_medium(0)
    seen[1] = seen[1].with_media([*seen[1].media, heard])
    kinds = choose_examples(answers, seen, seed=0)
    path = tmp_path / "report.html"
    write_language_report(
        path, metrics=measured(), kinds=kinds, failed=[failed_clip("d:<i>9", 0)], title="Evaluation of a model"
    )
    html = path.read_text()
    assert html.count("data:image/jpeg;base64,") == 2
    (played,) = re.findall(r"data:audio/wav;base64,([^\"]+)", html)
    with wave.open(io.BytesIO(base64.b64decode(played))) as file:
        assert (file.getframerate(), file.getnframes()) == (16_000, len(heard.waveform))
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    np.testing.assert_allclose(samples, heard.waveform, atol=1e-4)
    assert "http" not in html
    assert "sit &lt;b&gt;down" in html
    assert "d:&lt;i&gt;9" in html
    assert html.count(">cut</span>") == 1
    assert html.count("the same</span>") == html.count("other words</span>") == 1
    assert "<b>1 of them did not end within that</b>" in html
    assert "exact_match 0.5 is below gate_minimum 0.9" in html
    assert html.count('class="tile main"') == 1
    assert "nrefs:1|case:mixed" in html


def test_disturbed_frames_have_a_table(tmp_path: Path):
    numbers = measured().numbers
    metrics = measured(disturbed={"reversed": numbers | {"exact_match": 0.125}, "middle": {"loss": 7.25}})
    write_language_report(tmp_path / "report.html", metrics=metrics, kinds=(), failed=(), title="Evaluation")
    html = (tmp_path / "report.html").read_text()
    assert "0.125" in html
    assert "7.25" in html
    assert "middle frame repeated" in html


def test_without_answers_the_page_says_how_to_get_some(tmp_path: Path):
    path = tmp_path / "report.html"
    write_language_report(path, metrics=measured(has_answers=False), kinds=(), failed=(), title="Evaluation")
    html = path.read_text()
    assert "predict_with_generate: true" in html
    assert "data:image" not in html
    assert "perplexity" in html


@pytest.mark.parametrize(("value", "said"), [(0.25, ", exact match 0.25: measured now"), (None, "version 3: ")])
def test_the_champion_is_named_with_its_figure(tmp_path: Path, value, said):
    how = "evaluated" if value else "not_comparable"
    champion = {"name": "ivcp-sft", "version": 3, "how": how, "detail": "measured now" if value else "it is gone"}
    metrics = measured(champion=MetricComparison(metric="exact_match", value=value, new_value=value, **champion))
    write_language_report(tmp_path / "report.html", metrics=metrics, kinds=(), failed=(), title="Evaluation")
    assert said in (tmp_path / "report.html").read_text()
