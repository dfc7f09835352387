"""Evaluates a model that writes, or that tells answers apart, on a prepared split."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ivcp.evaluation.champion import OnSameClips, compare_with_champion, why_other_words
from ivcp.evaluation.language.answers import SplitAnswers, write_answers
from ivcp.evaluation.language.gate import decide_by_metric
from ivcp.evaluation.language.measure import StageNumbers, measure_stage
from ivcp.evaluation.language.report import choose_examples, write_language_report
from ivcp.evaluation.language.smoke import choose_smoke_question
from ivcp.evaluation.predict import Disturbed
from ivcp.evaluation.recorded import record_evaluation
from ivcp.evaluation.unseen import SplitClips, UnseenClips
from ivcp.inference.loop import Samples
from ivcp.records import METRICS_FILE, REPORT_HTML, PreparedIndex, Split, write_lines
from ivcp.records.comparison import LeftOut, MetricComparison
from ivcp.records.evaluation import Disturbance, GateVerdict
from ivcp.records.language_evaluation import (
    GENERATED_FILE,
    PREDICT_RESULTS_FILE,
    SMOKE_QUESTION_FILE,
    TEXT_METRIC_NAMES,
    GenerationMetrics,
    LanguageMetrics,
    disturbed_file,
    numbers_of,
)
from ivcp.settings import RunConfig, video_meaning
from ivcp.stages.loaded_model import LoadedModel
from ivcp.storage.atomic import write_whole
from ivcp.tracking import DEFAULT_STORE, find_champion, tracked_run


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
    unseen = UnseenClips.of_split(index, split, model, verify_checksums=config.data.prepared_verify_checksums)
    output_dir.mkdir(parents=True, exist_ok=True)
    evaluation = LanguageEvaluation(config, model=model, index=index, unseen=unseen, split=split)
    with tracked_run(config, step="evaluation", default_store=default_store) as run:
        run.log_data_set(index, name=", ".join(config.data.dataset), context="evaluation")
        measured = evaluation.measure(default_store=default_store)
        metrics = measured.metrics
        files = evaluation.write(output_dir, measured)
        question = choose_smoke_question(model, evaluation.clips.samples)
        if question is not None:
            question.write(output_dir / SMOKE_QUESTION_FILE)
        record_evaluation(run, metrics, files)
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

    def measure(self, *, default_store: Path = DEFAULT_STORE) -> MeasuredLanguage:
        """Measures the stage's numbers and, where the model is to write answers, how near those are; and compares."""
        started, evaluation = time.monotonic(), self.config.evaluation
        found, generation, answers = self._of(self.clips.samples)
        others = {
            kind: self._of(Disturbed(self.clips.samples, kind, self.config.train.seed))
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
        champion = self._champion(metrics, default_store)
        gate = decide_by_metric(
            metrics.numbers,
            settings=evaluation,
            num_measured=metrics.num_clips - metrics.num_failed,
            champion=champion,
            model_alias=self.config.export.model_alias,
            knows_what_it_saw=metrics.knows_what_it_saw,
        )
        return MeasuredLanguage(
            metrics.model_copy(update={"gate": gate, "champion": champion}),
            answers,
            {kind: written for kind, (_, _, written) in others.items() if written is not None},
        )

    def _of(self, samples: Samples) -> tuple[StageNumbers, GenerationMetrics | None, SplitAnswers | None]:
        """The stage's numbers and, where answers are to be written, those and how near they are."""
        numbers = self._numbers(self.model, samples, self.config)
        if not self.config.generation.predict_with_generate:
            return numbers, None, None
        answers = self._answers(self.model, samples, num_missing=len(self.clips.failed))
        return numbers, answers.metrics(self.config.generation), answers

    def _numbers(self, model: LoadedModel, samples: Samples, run: RunConfig) -> StageNumbers:
        """What the stage measures, and the reward of what the model writes where there is one."""
        found = measure_stage(model, model.stage.measured(model.module, run), samples, **self._sizes)
        if (rewarded := model.stage.rewarded(model, run)) is None:
            return found
        rewards = measure_stage(model, rewarded, samples, **self._sizes)
        return StageNumbers(found.loss, {**found.metrics, **rewards.metrics})

    def _answers(self, model: LoadedModel, samples: Samples, *, num_missing: int) -> SplitAnswers:
        seed = self.config.train.seed
        return write_answers(model, samples, self.config.generation, seed=seed, num_missing=num_missing, **self._sizes)

    @property
    def _sizes(self) -> dict[str, int]:
        train = self.config.train
        return {"batch_size": train.per_device_eval_batch_size, "num_workers": train.dataloader_num_workers}

    def _champion(self, metrics: LanguageMetrics, default_store: Path) -> MetricComparison | None:
        evaluation = self.config.evaluation
        champion = find_champion(self.config, default_store=default_store) if evaluation.compare_with_champion else None
        if champion is None:
            return None
        names = (evaluation.gate_metric,) if evaluation.gate_metric else self.model.stage.compared_by
        metric = next((name for name in names if name in metrics.numbers), None)
        if metric is None:
            detail = f"of what models of this stage are compared by ({', '.join(names)}) nothing was measured"
            return MetricComparison(name=champion.name, version=champion.version, how="not_comparable", detail=detail)
        theirs = champion.recorded(metric) if champion.test_fingerprint == metrics.test_fingerprint else None
        ours = metrics.numbers[metric]
        found = compare_with_champion(
            champion,
            model=self.model,
            recorded=None if theirs is None else OnSameClips(theirs, ours, metrics.num_clips, LeftOut()),
            machine=self.config.model,
            device=next(self.model.module.parameters()).device.type,
            why_unfit=lambda other: why_unfit(other, self.index) or why_other_words(other, self.model),
            measure_both=lambda other: self.on_same_clips(other, metric, ours),
        )
        both = {"value": found.both and found.both.champion, "new_value": found.both and found.both.new}
        return MetricComparison(metric=metric, **both, **found.described())

    def on_same_clips(self, champion: LoadedModel, metric: str, ours: float) -> OnSameClips | None:
        """Both models on the clips that neither has seen; null where there are none. `ours` is that of all clips."""
        unseen = self.clips.unseen_by(champion.seen)
        if not len(unseen.clips.samples):
            return None
        if unseen.left_out.total:
            ours = self._value(self.model, self.config, unseen.clips, metric)
        theirs = self._value(champion, self._of_champion, unseen.clips, metric)
        return OnSameClips(theirs, ours, len(unseen.clips), unseen.left_out)

    @property
    def _of_champion(self) -> RunConfig:
        """The settings by which it is measured: relative to what the new model is, even where it is merged."""
        language = self.config.language
        reference = language.ref_model or self.config.model.model_name_or_path
        return self.config.model_copy(update={"language": language.model_copy(update={"ref_model": reference})})

    def _value(self, model: LoadedModel, run: RunConfig, clips: SplitClips, metric: str) -> float:
        if metric in TEXT_METRIC_NAMES:
            answers = self._answers(model, clips.samples, num_missing=len(clips.failed))
            return numbers_of(None, {}, answers.metrics(self.config.generation))[metric]
        found = self._numbers(model, clips.samples, run)
        return numbers_of(found.loss, found.metrics, None)[metric]

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
        """A hash of the samples that were measured, how they were prepared and how they were measured; failed ones
        belong to it."""
        identities, failed = self.clips.identities, sorted(clip.clip_id for clip in self.clips.failed)
        rows = [*map(int, identities.all_contents), *map(int, identities.groups)]
        history = "unseen" if self.model.seen.is_complete else "not known"
        described = json.dumps([history, self.index.fingerprint, sorted(rows), failed, self._how_measured()])
        return hashlib.sha256(described.encode()).hexdigest()[:32]

    def _how_measured(self) -> dict[str, Any]:
        """The settings that the numbers depend on, and what rewards are relative to."""
        own, base = self.model.stage.own_settings or (), self.model.info.base
        is_relative = "ref_model" in own and self.config.language.ref_model is None
        return {
            "stage": self.config.language.model_dump(mode="json", include=set(own)),
            "generation": self.config.generation.model_dump(mode="json"),
            "base": base.fingerprint if base and is_relative else None,
        }
