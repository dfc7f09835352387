"""Evaluates an adapter or model directory on a prepared split, and decides the gate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ivcp.evaluation.asked import AskedSamples
from ivcp.evaluation.baselines.measure import Compared, measure_baselines
from ivcp.evaluation.calibration import NotCalibratedError, clips_to_fit_on, fit_calibration, measure_confidence
from ivcp.evaluation.champion import OnSameClips, compare_with_champion
from ivcp.evaluation.confidence_plot import draw_confidence
from ivcp.evaluation.confusion_plot import draw_confusion_matrix
from ivcp.evaluation.details import describe_evaluation, most_uncertain
from ivcp.evaluation.flips import answers_of, compare_answers, recorded_answers
from ivcp.evaluation.gate import decide, split_fingerprint, why_unfit
from ivcp.evaluation.language.asked import check_measuring_here
from ivcp.evaluation.language.evaluate import evaluate_language
from ivcp.evaluation.measure import measure, measure_disturbed, measure_intervals
from ivcp.evaluation.predict import PredictedSplit, predict_split, prediction_rows
from ivcp.evaluation.recorded import record_evaluation
from ivcp.evaluation.report import clip_rows, rows_of, shown_clips, worst_mistakes, write_class_table, write_report
from ivcp.evaluation.report_markdown import REPORT_MARKDOWN, report_in_markdown
from ivcp.evaluation.slices import facts_of, measure_slices
from ivcp.evaluation.smoke import choose_smoke_clip
from ivcp.evaluation.targets.evaluate import evaluate_targets
from ivcp.evaluation.unseen import SplitClips, UnseenClips
from ivcp.evaluation.views import CROPS, StoredViews, average, measure_views
from ivcp.inference.loop import Samples
from ivcp.records import (
    CLASS_TABLE_FILE,
    CONFIDENCE_FILE,
    CONFUSION_MATRIX_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    REPORT_HTML,
    REPORT_JSON,
    Message,
    PreparedIndex,
    Split,
    write_lines,
)
from ivcp.records.baselines import Baseline
from ivcp.records.calibration import Calibration
from ivcp.records.comparison import ChampionComparison, LeftOut
from ivcp.records.evaluation import (
    SMOKE_CLIP_FILE,
    Disturbance,
    DisturbedResult,
    EvaluationMetrics,
    MeasuredConfidence,
    PromptResults,
    SplitMetrics,
)
from ivcp.records.language_evaluation import Measured
from ivcp.records.slices import Slice
from ivcp.records.views import MultiView
from ivcp.settings import RunConfig
from ivcp.stages.directory import load_directory, stage_of_directory
from ivcp.stages.loaded_model import LoadedModel
from ivcp.storage.atomic import write_whole
from ivcp.tracking import DEFAULT_STORE, Champion, find_champion, tracked_run, tracking_uri

log = logging.getLogger(__name__)


def evaluate_adapter(
    config: RunConfig,
    *,
    adapter_dir: Path,
    index: PreparedIndex,
    output_dir: Path,
    split: Split = "test",
    default_store: Path = DEFAULT_STORE,
) -> Measured:
    """Measures a trained model on a split of prepared clips and writes metrics, predictions or answers, and report.

    `adapter_dir` is an adapter or a model directory; its stage says whether it is a classifier. A model that the gate
    refuses is a result, not an error.

    Raises:
        ConfigError: its stage cannot be measured as the settings ask.
        ModelFilesError: `adapter_dir` is incomplete or untrained.
        ValueError: it was trained for other labels or video settings than the clips, or the split is empty.
        SeenSplitError: the model has seen too much of the split.
        NonFiniteError: its logits are not finite.
    """
    check_measuring_here(stage_of_directory(adapter_dir), config)
    output_dir.mkdir(parents=True, exist_ok=True)
    model = load_directory(adapter_dir, machine=config.model, device=_device())
    if model.stage.rows != "labels":
        measured: Callable[..., Measured] = evaluate_language
    else:
        measured = _evaluate_classifier if model.labels.kind == "class" else evaluate_targets
    return measured(config, model=model, index=index, output_dir=output_dir, split=split, default_store=default_store)


def _evaluate_classifier(
    config: RunConfig, *, model: LoadedModel, index: PreparedIndex, output_dir: Path, split: Split, default_store: Path
) -> EvaluationMetrics:
    model = model.asking(config.serving.served_prompt)
    if unfit := why_unfit(model, index):
        raise ValueError(f"{model.directory} cannot be evaluated on these prepared clips: {unfit}")
    unseen = UnseenClips.of_split(index, split, model, verify_checksums=config.data.prepared_verify_checksums)
    evaluation = SplitEvaluation(config, model=model, index=index, unseen=unseen, split=split)
    with tracked_run(config, step="evaluation", default_store=default_store) as run:
        run.log_data_set(index, name=", ".join(config.data.dataset), context="evaluation")
        predicted = evaluation.predict()
        metrics = evaluation.metrics(predicted, default_store=default_store)
        evaluation.write(output_dir, metrics=metrics, predicted=predicted)
        names = [METRICS_FILE, REPORT_HTML, REPORT_JSON, REPORT_MARKDOWN]
        names += [CONFUSION_MATRIX_FILE, PREDICTIONS_FILE, CLASS_TABLE_FILE]
        if metrics.confidence:
            names.append(CONFIDENCE_FILE)
        record_evaluation(run, metrics, [output_dir / name for name in names])
    return metrics


class SplitEvaluation:
    """One model on the clips of one prepared split that it has not seen."""

    def __init__(
        self, config: RunConfig, *, model: LoadedModel, index: PreparedIndex, unseen: UnseenClips, split: Split
    ) -> None:
        self.config = config
        self.model = model
        self.index = index
        self.clips = unseen.clips
        self.positions = unseen.positions
        self.left_out = unseen.left_out
        self.split = split

    def predict(self, *, disturb: Disturbance | None = None) -> PredictedSplit:
        """Predicts the clips, with disturbed frames where that is asked for."""
        return self._predict(self.model, self.clips, disturb=disturb)

    def _predict(self, model: LoadedModel, clips: SplitClips, *, disturb: Disturbance | None = None) -> PredictedSplit:
        return predict_split(
            model.predict,
            AskedSamples(clips.samples, model.stage.tokenize, model.processor, model.prompt),
            num_classes=self.index.classes.num_classes,
            batch_size=self.config.train.per_device_eval_batch_size,
            failed=clips.failed,
            disturb=disturb,
            seed=self.config.train.seed,
            num_workers=self.config.train.dataloader_num_workers,
            source=str(model.directory),
        )

    def metrics(self, predicted: PredictedSplit, *, default_store: Path = DEFAULT_STORE) -> EvaluationMetrics:
        """Everything that is known about `predicted`, the undisturbed prediction of the split."""
        measured, is_known = self._measure(predicted), self.model.seen.is_complete
        fingerprint = split_fingerprint(
            predicted, prepared_fingerprint=self.index.fingerprint, knows_what_it_saw=is_known
        )
        champion = self._champion(predicted, measured, fingerprint, default_store)
        baselines, confidence = self._baselines(predicted), self._confidence(predicted)
        return EvaluationMetrics(
            **measured.model_dump(exclude={"intervals"}),
            intervals=measure_intervals(predicted, labels=self.index.classes, clips=self.clips),
            baselines=baselines,
            multi_view=self._several_views(predicted),
            slices=self._slices(predicted),
            split=self.split,
            model_dir=str(self.model.directory),
            prompt=_in_words(self.model.prompt),
            precision=self.model.precision,
            left_out=self.left_out,
            knows_what_it_saw=is_known,
            disturbed=self._disturbed(predicted),
            prompts=self._of_all_prompts(),
            confidence=confidence,
            champion=champion,
            gate=decide(
                measured.top1_accuracy,
                settings=self.config.evaluation,
                champion=champion,
                baselines=baselines,
                model_alias=self.config.export.model_alias,
                knows_what_it_saw=is_known,
                calibration_error=confidence.final.expected_calibration_error if confidence else None,
            ),
            test_fingerprint=fingerprint,
            prepared_fingerprint=self.index.fingerprint,
            data_fingerprint=self.index.data_fingerprint,
            seconds=predicted.seconds,
        )

    def on_same_clips(self, champion: LoadedModel, predicted: PredictedSplit) -> OnSameClips | None:
        """Both models on the clips that neither has seen; null where there are none."""
        unseen = self.clips.unseen_by(champion.seen)
        if not len(unseen.clips):
            return None
        ours = predicted.only(unseen.positions, failed=unseen.clips.failed)
        theirs = self._predict(champion, unseen.clips)
        both = self._both(self._measure(theirs).top1_accuracy, self._measure(ours), unseen.left_out)
        return replace(both, flips=compare_answers(ours, answers_of(theirs), self.index.classes))

    def write(self, output_dir: Path, *, metrics: EvaluationMetrics, predicted: PredictedSplit) -> None:
        """Writes the numbers, the predictions, the pictures and the report."""
        names, confidence_picture = self.index.classes.label_names, None
        if metrics.calibration:
            predicted = replace(predicted, temperature=metrics.calibration.temperature)
        metrics.write(output_dir / METRICS_FILE)
        facts = facts_of(predicted, self.clips)
        write_lines(output_dir / PREDICTIONS_FILE, prediction_rows(predicted, self.index.classes, facts))
        smoke_clip = choose_smoke_clip(predicted, self.clips.samples, self.model)
        if smoke_clip is not None:
            smoke_clip.write(output_dir / SMOKE_CLIP_FILE)
        write_class_table(output_dir / CLASS_TABLE_FILE, metrics.classes)
        title = f"{self.split} split: top-1 accuracy {100 * metrics.top1_accuracy:.1f} %"
        picture = output_dir / CONFUSION_MATRIX_FILE
        draw_confusion_matrix(metrics.confusion_matrix, label_names=names, path=picture, title=title)
        if metrics.confidence:
            confidence_picture = output_dir / CONFIDENCE_FILE
            draw_confidence(metrics.confidence, split=self.split, path=confidence_picture)
        details = describe_evaluation(
            self.config, directory=self.model.directory, index=self.index, predicted=predicted
        )
        details.write(output_dir / REPORT_JSON)
        write_whole(output_dir / REPORT_MARKDOWN, report_in_markdown(metrics, details))
        write_report(
            output_dir / REPORT_HTML,
            metrics=metrics,
            details=details,
            clips=clip_rows(predicted),
            mistakes=worst_mistakes(predicted, self.clips.samples, self.index.classes),
            uncertain=shown_clips(predicted, most_uncertain(predicted), self.clips.samples, self.index.classes),
            doubtful=shown_clips(
                predicted, rows_of(predicted, details.label_issues), self.clips.samples, self.index.classes
            ),
            failed=self.clips.failed,
            confusion_picture=picture,
            confidence_picture=confidence_picture,
            title=f"Evaluation of {self.config.train.run_name or 'an action classifier'}",
        )

    def _several_views(self, predicted: PredictedSplit) -> MultiView | None:
        asked, split = self.config.protocol, self.split
        if asked.num_views == 1 or not len(self.clips.samples):
            return None
        if split != "test":
            log.warning("several views are of test clips: the %s split is measured in one", split)
            return None
        stored = StoredViews.of(
            self.index, self.positions, processor=self.model.processor, num_clips=asked.test_num_clips
        )
        views = [
            predicted.logits
            if crop is None and stored.is_sampled(view)
            else self._predict(self.model, replace(self.clips, samples=stored.view(view, crop))).logits
            for view in range(asked.test_num_clips)
            for crop in (CROPS if asked.test_num_crops == len(CROPS) else (None,))
        ]
        several = replace(predicted, logits=average(views))
        return measure_views(
            several,
            predicted,
            measured=self._measure(several),
            clusters=self.clips.clusters,
            views=(asked.test_num_clips, asked.test_num_crops),
        )

    def _slices(self, predicted: PredictedSplit) -> tuple[Slice, ...]:
        hits = np.concatenate(
            [predicted.predictions == predicted.labels, np.zeros(len(predicted.failed), dtype=np.bool_)]
        )
        videos = [*predicted.videos, *(clip.video for clip in predicted.failed)]
        facts = facts_of(predicted, self.clips)
        return measure_slices(hits, facts, clusters=self.clips.clusters, videos=videos)

    def _confidence(self, predicted: PredictedSplit) -> MeasuredConfidence | None:
        """How far its confidences can be believed, by a calibration fitted now, or else that of its directory."""
        calibration, why_not = self.model.calibration, ""
        try:
            calibration = self._fit(predicted)
        except NotCalibratedError as error:
            why_not = str(error)
        measured = measure_confidence(predicted, calibration=calibration, why_not=why_not)
        if calibration is None:
            log.warning("confidences are not calibrated, and no answer is called unsure: %s", why_not)
        elif measured:
            log.info("calibrated, %s: %s", calibration.summary, measured.words)
        return measured

    def _fit(self, predicted: PredictedSplit) -> Calibration:
        """A calibration by validation clips, asked and computed as the predictor does."""
        checks = self.config.data.prepared_verify_checksums
        clips = clips_to_fit_on(self.index, self.model.seen, verify_checksums=checks)
        on_val = predicted if self.split == "val" else self._predict(self.model, clips)
        return fit_calibration(on_val, split="val", sure_accuracy=self.config.evaluation.sure_accuracy)

    def _disturbed(self, predicted: PredictedSplit) -> tuple[DisturbedResult, ...]:
        kinds = self.config.evaluation.disturb_frames
        if not kinds:
            return ()
        labels = self.index.classes
        results = [measure_disturbed(self.predict(disturb=kind), labels=labels, kind=kind) for kind in kinds]
        return (measure_disturbed(predicted, labels=labels, kind=None), *results)

    def _baselines(self, predicted: PredictedSplit) -> tuple[Baseline, ...]:
        compared = Compared(
            self.config, self.model, self.index, self.clips, predicted, majority_label=self._majority_label()
        )

        def disturbed(kind: Disturbance, samples: Samples) -> NDArray[np.int64]:
            return self._predict(self.model, replace(self.clips, samples=samples, failed=()), disturb=kind).predictions

        return measure_baselines(compared, disturbed=disturbed)

    def _of_all_prompts(self) -> PromptResults | None:
        if not self.config.evaluation.evaluate_all_prompts:
            return None
        accuracies = {}
        for prompt in self.index.prompts:
            asked = replace(self.model, info=self.model.info.model_copy(update={"prompt": prompt}))
            accuracies[_in_words(prompt)] = self._measure(self._predict(asked, self.clips)).top1_accuracy
        return PromptResults.of(accuracies)

    def _champion(
        self, predicted: PredictedSplit, measured: SplitMetrics, test_fingerprint: str, default_store: Path
    ) -> ChampionComparison | None:
        if not self.config.evaluation.compare_with_champion:
            return None
        champion = find_champion(self.config, default_store=default_store)
        if champion is None:
            return None
        theirs = champion.top1_accuracy if champion.test_fingerprint == test_fingerprint else None
        recorded = None if theirs is None else self._recorded(champion, theirs, predicted, measured, default_store)
        if recorded and recorded.flips is None and self.config.evaluation.champion_class_tolerance is not None:
            recorded = None  # the rule is about answers
        found = compare_with_champion(
            champion,
            model=self.model,
            recorded=recorded,
            machine=self.config.model,
            device=_device(),
            why_unfit=lambda champion: why_unfit(champion, self.index),
            measure_both=lambda champion: self.on_same_clips(champion, predicted),
        )
        if found.both is None:
            return ChampionComparison(**found.described(), top1_accuracy=None)
        return ChampionComparison(
            **found.described(),
            top1_accuracy=found.both.champion,
            new_top1_accuracy=found.both.new,
            flips=found.both.flips,
        )

    def _recorded(
        self, champion: Champion, top1: float, predicted: PredictedSplit, measured: SplitMetrics, default_store: Path
    ) -> OnSameClips:
        """The champion's recorded figure, and its answers where its evaluation logged them."""
        both = self._both(top1, measured, LeftOut())
        answers = recorded_answers(champion, tracking_uri(self.config, default_store=default_store))
        if answers is None or not answers.keys() >= set(predicted.clip_ids):
            return both
        return replace(both, flips=compare_answers(predicted, answers, self.index.classes))

    @staticmethod
    def _both(champion_top1: float, own: SplitMetrics, left_out: LeftOut) -> OnSameClips:
        return OnSameClips(champion_top1, own.top1_accuracy, own.num_clips, left_out)

    def _measure(self, predicted: PredictedSplit) -> SplitMetrics:
        return measure(predicted, labels=self.index.classes, majority_label=self._majority_label())

    def _majority_label(self) -> int:
        counts = self.index.label_counts.get("train") or self.index.label_counts[self.split]
        return int(np.argmax(counts))


def _in_words(prompt: Sequence[Message]) -> str:
    return "\n".join(message.content for message in prompt)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
