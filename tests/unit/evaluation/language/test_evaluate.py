"""Models of every language stage, measured on drawn frames that they have not seen."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ivcp.evaluation.evaluate import evaluate_adapter
from ivcp.evaluation.language.evaluate import LanguageEvaluation, why_unfit
from ivcp.evaluation.step import run_step
from ivcp.evaluation.unseen import SplitClips
from ivcp.records import METRICS_FILE, REPORT_HTML, read_lines
from ivcp.records.language_evaluation import (
    GENERATED_FILE,
    PREDICT_RESULTS_FILE,
    GeneratedText,
    LanguageMetrics,
    disturbed_file,
    read_metrics,
)
from ivcp.settings import ConfigError, save_config
from ivcp.stages.directory import load_directory
from ivcp.stages.registry import stage_of
from ivcp.training.build import build_trainer
from tests.language import ANSWERS, STAGES, exchanged, index_of, language_config, samples_of, with_frames
from tests.prepared import identities_of, write_shards
from tests.unit.evaluation.predicted import failed_clip

NUMBERS = range(100, 111)
GREEDY = {"predict_with_generate": True, "do_sample": False, "max_new_tokens": 48}


def asking(config, **settings):
    """The settings of the training, with others of the evaluation."""
    return language_config(
        Path(config.model.required_name),
        config.method.stage,
        output_dir=config.train.output_dir,
        finetuning_type=config.method.finetuning_type,
        per_device_eval_batch_size=4,
        report_to="none",
        **settings,
    )


def evaluation_of(config, *, numbers=NUMBERS, failed=(), change=None, **settings):
    model = load_directory(Path(config.train.output_dir))
    samples = samples_of(config, model.processor, numbers)
    samples = change(samples) if change else samples
    split = SplitClips(samples, identities_of(sample.sample_id for sample in samples), tuple(failed))
    index = index_of(config, {"test": len(samples)})
    unseen = split.unseen_by(model.seen)
    return LanguageEvaluation(asking(config, **settings), model=model, index=index, unseen=unseen, split="test")


def test_a_model_that_learned_its_answers_writes_them(trained, tmp_path):
    evaluation = evaluation_of(trained("sft"), **GREEDY, gate_metric="exact_match", gate_minimum=0.9)
    measured = evaluation.measure()
    metrics, answers = measured.metrics, measured.answers
    assert metrics.generation.text.exact_match == 1.0
    assert metrics.generation.text.bleu_4 == metrics.generation.text.rouge_l == 100.0
    assert metrics.generation.num_cut == 0
    assert [answer.written for answer in answers.answers] == [ANSWERS[number % 3] for number in NUMBERS]
    assert metrics.gate.passed
    assert metrics.gate.reasons[0] == "exact_match 1 reaches gate_minimum 0.9"

    evaluation.write(tmp_path, measured)
    rows = [json.loads(line) for line in (tmp_path / GENERATED_FILE).read_text().splitlines()]
    assert [set(row) for row in rows] == [{"prompt", "predict", "label"}] * len(NUMBERS)
    assert all(row["predict"] == row["label"] for row in rows)
    assert rows[0]["prompt"].startswith("<|im_start|>system")
    assert rows[0]["prompt"].endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert "<|video_pad|><|video_pad|>" in rows[0]["prompt"]
    results = json.loads((tmp_path / PREDICT_RESULTS_FILE).read_text())
    assert {"predict_bleu-4", "predict_rouge-1", "predict_rouge-2", "predict_rouge-l"} < set(results)
    assert {"predict_runtime", "predict_samples_per_second", "predict_steps_per_second"} < set(results)
    assert results["predict_rouge-1"] == 100.0
    assert read_metrics(tmp_path / METRICS_FILE) == metrics


def test_it_answers_by_what_it_sees(trained):
    measured = evaluation_of(trained("sft"), change=exchanged, **GREEDY).measure()
    metrics, answers = measured.metrics, measured.answers
    assert [answer.written for answer in answers.answers[:-1]] == [ANSWERS[(number + 1) % 3] for number in NUMBERS[:-1]]
    assert metrics.generation.text.exact_match < 0.2


def test_disturbed_frames_are_measured_beside(trained, tmp_path):
    """One frame is another clip's: repeated, it makes the answer another one."""
    evaluation = evaluation_of(trained("sft"), disturb_frames="reversed,middle", change=one_light_frame, **GREEDY)
    measured = evaluation.measure()
    metrics = measured.metrics
    assert set(metrics.disturbed) == {"reversed", "middle"}
    assert all(set(numbers) == set(metrics.numbers) for numbers in metrics.disturbed.values())
    assert metrics.disturbed["reversed"]["loss"] != metrics.loss
    assert metrics.disturbed["middle"]["loss"] > 2 * metrics.loss
    assert metrics.headline()["middle_exact_match"] == metrics.disturbed["middle"]["exact_match"]
    evaluation.write(tmp_path, measured)
    rows = [json.loads(line) for line in (tmp_path / disturbed_file("middle")).read_text().splitlines()]
    same = [row["predict"] == row["label"] for row in rows]
    assert sum(same) / len(NUMBERS) == metrics.disturbed["middle"]["exact_match"] < 1.0


def one_light_frame(samples):
    """Samples whose middle frame is another clip's."""
    others = exchanged(samples)
    return [
        with_frames([sample], lambda frames, other=other: replaced(frames, other.media[0].frames))[0]
        for sample, other in zip(samples, others, strict=True)
    ]


def replaced(frames, others):
    changed = frames.copy()
    changed[len(frames) // 2] = others[len(frames) // 2]
    return changed


def test_the_loss_is_that_of_all_tokens_whatever_the_batches(trained):
    config = trained("sft")
    one, four = (evaluation_of(config, change=exchanged).measure().metrics for _ in range(2))
    evaluation = evaluation_of(config, change=exchanged)
    model, samples = evaluation.model, evaluation.clips.samples
    total = count = 0.0
    for sample in samples:
        batch = model.processor.batch([sample], prompts_only=False)
        labels = batch.pop("token_labels")[0]
        with torch.no_grad():
            logits = model.module.backbone(**batch).logits[0].float()
        learned = labels[1:] != -100
        total -= logits[:-1].log_softmax(dim=-1)[learned, labels[1:][learned]].sum().item()
        count += learned.sum().item()
    assert one.loss == pytest.approx(total / count, rel=1e-5) == pytest.approx(four.loss)
    assert one.metrics["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)
    assert one.loss > 1.0 > evaluation_of(config).measure().metrics.loss


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_measured_as_validation_measures_it(trained, stage):
    config = trained(stage)
    metrics = evaluation_of(config).measure().metrics
    trainer = build_trainer(
        asking(config, max_steps=1),
        index=index_of(config, {"train": 2, "val": len(NUMBERS)}),
        samples={
            "train": samples_of(config, load_directory(Path(config.train.output_dir)).processor, range(2)),
            "val": samples_of(config, load_directory(Path(config.train.output_dir)).processor, NUMBERS),
        },
        output_dir=Path(config.train.output_dir),
    )
    trainer._load_from_checkpoint(config.train.output_dir)
    expected = trainer.evaluate()
    assert {name: pytest.approx(expected[f"eval_{name}"], abs=1e-4) for name in metrics.metrics} == metrics.metrics
    if stage not in ("kto",):  # its mismatched answers are those of a batch's neighbours
        assert metrics.loss == pytest.approx(expected["eval_loss"], rel=2e-2)
    assert set(stage_of(config).metric_names) <= set(metrics.metrics)


def test_pairs_are_told_apart_relative_to_the_base(trained):
    metrics = evaluation_of(trained("dpo")).measure().metrics
    assert metrics.metrics["rewards/margins"] != 0.0
    assert 0.0 <= metrics.metrics["rewards/accuracies"] <= 1.0


def test_pairs_of_a_model_without_an_adapter_need_a_reference(trained, language_base):
    config = trained("dpo")
    alone, beside = evaluation_of(config), evaluation_of(config, ref_model=str(language_base))
    for evaluation in (alone, beside):
        evaluation.model.module.backbone = evaluation.model.module.backbone.merge_and_unload()
    with pytest.raises(ConfigError, match="set ref_model to the model that its training started from"):
        alone.measure()
    of_adapter = evaluation_of(config).measure().metrics.metrics
    assert beside.measure().metrics.metrics == pytest.approx(of_adapter, abs=1e-4)


def test_undesirable_answers_are_no_references(trained):
    answers = evaluation_of(trained("kto"), **GREEDY).measure().answers
    assert [answer.position for answer in answers.answers] == [
        position for position, number in enumerate(NUMBERS) if number // 3 % 2 == 0
    ]


def test_clips_that_could_not_be_decoded_count_as_wrong(trained):
    failed = [failed_clip("d:1", 0)]
    measured = evaluation_of(trained("sft"), failed=failed, **GREEDY).measure()
    metrics, answers = measured.metrics, measured.answers
    assert (metrics.num_clips, metrics.num_failed) == (12, 1)
    assert metrics.generation.text.exact_match == pytest.approx(11 / 12)
    assert metrics.generation.text.rouge_1 == pytest.approx(1100 / 12, abs=1e-3)
    assert len(answers.answers) == 11


def test_a_model_that_nothing_was_measured_of_is_not_let_out(trained):
    failed = [failed_clip(f"d:{number}", number) for number in NUMBERS]
    metrics = evaluation_of(trained("sft"), numbers=(), failed=failed).measure().metrics
    assert not metrics.gate.passed
    assert metrics.gate.reasons[0].startswith("no clip could be measured")


def test_the_gate_refuses_by_the_metric_of_ones_choice(trained):
    by_loss = evaluation_of(trained("sft"), change=exchanged, gate_metric="perplexity", gate_maximum=1.5)
    measured = by_loss.measure()
    metrics, answers = measured.metrics, measured.answers
    assert answers is None
    assert not metrics.gate.passed
    assert "exceeds gate_maximum 1.5" in metrics.gate.reasons[0]
    by_text = evaluation_of(trained("sft"), change=exchanged, gate_metric="token_f1", gate_minimum=0.9, **GREEDY)
    assert not by_text.measure().metrics.gate.passed


def test_a_metric_that_is_not_measured_is_named_with_those_that_are(trained):
    with pytest.raises(ConfigError, match=r"accuracy was not measured; what was is loss, .*token_accuracy"):
        evaluation_of(trained("sft"), gate_metric="accuracy", gate_minimum=0.5).measure()


def test_samples_of_another_stage_do_not_fit(trained):
    model = load_directory(Path(trained("sft").train.output_dir))
    assert why_unfit(model, index_of(trained("sft"), {"test": 1})) is None
    assert "prepare them with stage: sft" in why_unfit(model, index_of(trained("dpo"), {"test": 1}))


def prepared(config, folder):
    """Shards of the test split below `folder`, and their index."""
    stage = stage_of(config)
    processor = load_directory(Path(config.train.output_dir)).processor
    samples = [("test", sample) for sample in samples_of(config, processor, NUMBERS)]
    shards = write_shards(folder, samples, stage=stage)
    return index_of(config, {"test": len(samples)}).model_copy(update=shards)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_directory_is_measured_on_prepared_shards(trained, stage, tmp_path):
    config = trained(stage)
    metrics = evaluate_adapter(
        asking(config, **GREEDY),
        adapter_dir=Path(config.train.output_dir),
        index=prepared(config, tmp_path / "shards"),
        output_dir=tmp_path / "results",
    )
    assert isinstance(metrics, LanguageMetrics)
    assert metrics.num_clips == len(NUMBERS)
    assert len(read_lines(tmp_path / "results" / GENERATED_FILE, GeneratedText)) == len(NUMBERS)
    html = (tmp_path / "results" / REPORT_HTML).read_text()
    assert html.count("data:image/jpeg;base64,") == len(NUMBERS)
    in_memory = evaluation_of(config, **GREEDY).measure().metrics
    assert metrics.numbers == pytest.approx(in_memory.numbers, abs=1e-6)


def test_the_pipelines_step_says_what_came_out(trained, tmp_path):
    config = asking(trained("sft"), **GREEDY, gate_metric="exact_match", gate_minimum=1.0)
    save_config(config, tmp_path / "run_config.json")
    prepared(config, tmp_path / "shards").write(tmp_path / "index.json")
    outcome = run_step(
        run_config=str(tmp_path / "run_config.json"),
        prepared=str(tmp_path / "index.json"),
        adapter=config.train.output_dir,
        results=str(tmp_path / "results"),
        report=str(tmp_path / "report.html"),
    )
    assert outcome.passed
    assert outcome.headline["exact_match"] == 1.0
    assert outcome.confusion_matrices == []
    assert "Worst answers" in (tmp_path / "report.html").read_text()


def test_the_same_samples_have_the_same_fingerprint(trained):
    config = trained("sft")
    fingerprints = [evaluation_of(config, numbers=numbers).measure().metrics.test_fingerprint for numbers in (
        range(100, 103), range(102, 99, -1), range(100, 104)
    )]  # fmt: skip
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert np.unique(fingerprints).size == 2
