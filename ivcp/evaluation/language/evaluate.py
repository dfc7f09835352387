"""Evaluates a model that writes, or that tells answers apart, on a prepared split."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ivcp.evaluation.language.answers import SplitAnswers, write_answers
from ivcp.evaluation.language.gate import decide_by_metric
from ivcp.evaluation.language.measure import StageNumbers, measure_stage
from ivcp.evaluation.language.report import choose_examples, write_language_report
from ivcp.evaluation.language.smoke import choose_smoke_question
from ivcp.evaluation.predict import Disturbed
from ivcp.evaluation.unseen import SplitClips, UnseenClips
from ivcp.inference.loop import Samples
from ivcp.models.backbone import BackboneModule
from ivcp.records import METRICS_FILE, REPORT_HTML, PreparedIndex, Split, write_lines
from ivcp.records.evaluation import Disturbance, GateVerdict
from ivcp.records.language_evaluation import (
    GENERATED_FILE,
    PREDICT_RESULTS_FILE,
    SMOKE_QUESTION_FILE,
    GenerationMetrics,
    LanguageMetrics,
    disturbed_file,
    numbers_of,
)
from ivcp.settings import RunConfig, video_meaning
from ivcp.stages.loaded_model import LoadedModel
from ivcp.storage.atomic import write_whole
from ivcp.tracking import DEFAULT_STORE, tracked_run

log = logging.getLogger(__name__)


def evaluate_language(
    config: RunConfig,
    *,
    model: LoadedModel,
    index: PreparedIndex,
    output_dir: Path,
    split: Split = "test",
    default_store: Path = DEFAULT_STORE,
) -> LanguageMetrics:
    """Measures a model on a split of prepared samples and writes metrics, answers and report.

    Answers are written where `predict_with_generate` is set. A model that the gate refuses is a result, not an error.

    Raises:
        ConfigError: there is no reference model that the stage's numbers are relative to.
        ValueError: the model was trained for other samples or video settings, or the split is empty.
        SeenSplitError: the model has seen too much of the split.
        NonFiniteError: what it computes is not finite.
    """
    if unfit := why_unfit(model, index):
        raise ValueError(f"{model.directory} cannot be evaluated on these prepared clips: {unfit}")
    clips = SplitClips.of(index, split, verify_checksums=config.data.prepared_verify_checksums)
    unseen = clips.unseen_by(model.seen)
    unseen.check(model=str(model.directory), split=split)
    output_dir.mkdir(parents=True, exist_ok=True)
    evaluation = LanguageEvaluation(config, model=model, index=index, unseen=unseen, split=split)
    with tracked_run(config, step="evaluation", default_store=default_store) as run:
        measured = evaluation.measure()
        metrics = measured.metrics
        files = evaluation.write(output_dir, measured)
        question = choose_smoke_question(model, evaluation.clips.samples)
        if question is not None:
            question.write(output_dir / SMOKE_QUESTION_FILE)
        run.log_metrics({f"{split}/{name}": value for name, value in metrics.headline().items()})
        run.set_tags(metrics.fingerprints() | {"gate": "passed" if metrics.gate.passed else "refused"})
        for path in files:
            run.log_artifact(path, folder="evaluation")
    level = logging.WARNING if metrics.left_out.total or not metrics.knows_what_it_saw else logging.INFO
    log.log(level, "measured on %s", metrics.measured_on)
    log.info("%s; gate: %s", metrics.summary, "; ".join(metrics.gate.reasons))
    return metrics


def why_unfit(model: LoadedModel, index: PreparedIndex) -> str | None:
    """What keeps `model` from reading the prepared samples of `index`; null when nothing does."""
    stage = model.config.method.stage
    if index.stage != stage:
        return (
            f"they were prepared for stage {index.stage}, and it is of stage {stage}: prepare them with stage: {stage}"
        )
    if video_meaning(model.config.video) != video_meaning(index.video):
        return f"its video settings ({model.config.video}) are not those of the prepared clips ({index.video})"
    return None


@dataclass(frozen=True)
class MeasuredLanguage:
    """Everything that is known of a model."""

    metrics: LanguageMetrics
    answers: SplitAnswers | None
    """What it wrote; null where it was to write nothing."""
    disturbed: Mapping[Disturbance, SplitAnswers]
    """What it wrote of disturbed frames."""


class LanguageEvaluation:
    """One model on the samples of one prepared split that it has not seen."""

    def __init__(
        self, config: RunConfig, *, model: LoadedModel, index: PreparedIndex, unseen: UnseenClips, split: Split
    ) -> None:
        self.config, self.model, self.index, self.split = config, model, index, split
        self.clips, self.left_out = unseen.clips, unseen.left_out

    def measure(self) -> MeasuredLanguage:
        """Measures the stage's numbers and, where the model is to write answers, how near those are."""
        started, evaluation = time.monotonic(), self.config.evaluation
        module = self.model.stage.measured(self.model.module, self.config)
        found, generation, answers = self._of(module, self.clips.samples)
        others = {
            kind: self._of(module, Disturbed(self.clips.samples, kind, self.config.train.seed))
            for kind in evaluation.disturb_frames
        }
        metrics = LanguageMetrics(
            split=self.split,
            model_dir=str(self.model.directory),
            num_clips=len(self.clips),
            num_failed=len(self.clips.failed),
            precision=self.model.precision,
            left_out=self.left_out,
            knows_what_it_saw=self.model.seen.is_complete,
            stage=self.model.config.method.stage,
            loss=found.loss,
            metrics=dict(found.metrics),
            generation=generation,
            disturbed={
                kind: numbers_of(numbers.loss, numbers.metrics, near) for kind, (numbers, near, _) in others.items()
            },
            gate=GateVerdict(passed=False, reasons=()),
            test_fingerprint=self._fingerprint(),
            prepared_fingerprint=self.index.fingerprint,
            data_fingerprint=self.index.data_fingerprint,
            seconds=time.monotonic() - started,
        )
        gate = decide_by_metric(
            metrics.numbers,
            settings=evaluation,
            num_measured=metrics.num_clips - metrics.num_failed,
            knows_what_it_saw=metrics.knows_what_it_saw,
        )
        return MeasuredLanguage(
            metrics.model_copy(update={"gate": gate}),
            answers,
            {kind: written for kind, (_, _, written) in others.items() if written is not None},
        )

    def _of(
        self, module: BackboneModule, samples: Samples
    ) -> tuple[StageNumbers, GenerationMetrics | None, SplitAnswers | None]:
        """The stage's numbers and, where answers are to be written, those and how near they are."""
        train, generation = self.config.train, self.config.generation
        sizes = {"batch_size": train.per_device_eval_batch_size, "num_workers": train.dataloader_num_workers}
        numbers = measure_stage(self.model, module, samples, **sizes)
        if not generation.predict_with_generate:
            return numbers, None, None
        missing = len(self.clips.failed)
        answers = write_answers(self.model, samples, generation, seed=train.seed, num_missing=missing, **sizes)
        return numbers, answers.metrics(generation), answers

    def write(self, output_dir: Path, measured: MeasuredLanguage) -> list[Path]:
        """Writes the numbers, the answers and the report; returns their files."""
        metrics, answers = measured.metrics, measured.answers
        metrics.write(output_dir / METRICS_FILE)
        names = [METRICS_FILE, REPORT_HTML]
        written = {disturbed_file(kind): other for kind, other in measured.disturbed.items()}
        if answers is not None:
            written[GENERATED_FILE] = answers
        for name, each in written.items():
            write_lines(output_dir / name, [answer.line() for answer in each.answers])
            names.append(name)
        if answers is not None and metrics.generation is not None:
            results = metrics.generation.predict_results(num_batches=answers.num_batches)
            write_whole(output_dir / PREDICT_RESULTS_FILE, json.dumps(results, indent=4) + "\n")
            names.append(PREDICT_RESULTS_FILE)
        write_language_report(
            output_dir / REPORT_HTML,
            metrics=metrics,
            kinds=choose_examples(
                answers.answers if answers else (),
                self.clips.samples,
                seed=self.config.train.seed,
                rate=self.config.video.audio_sampling_rate,
            ),
            failed=self.clips.failed,
            title=f"Evaluation of {self.config.train.run_name or 'a ' + self.model.stage.title.lower()}",
        )
        return [output_dir / name for name in names]

    def _fingerprint(self) -> str:
        """A hash of the samples that were measured and how they were prepared; failed ones belong to it."""
        identities, failed = self.clips.identities, sorted(clip.clip_id for clip in self.clips.failed)
        rows = [*map(int, identities.contents), *map(int, identities.groups)]
        history = "unseen" if self.model.seen.is_complete else "not known"
        described = json.dumps([history, self.index.fingerprint, sorted(rows), failed])
        return hashlib.sha256(described.encode()).hexdigest()[:32]
