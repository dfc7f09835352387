"""Evaluates a model whose answer about a clip is not one class on a prepared split."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.evaluation.asked import AskedSamples
from ivcp.evaluation.calibration import NotCalibratedError, clips_to_fit_on
from ivcp.evaluation.champion import OnSameClips, compare_with_champion
from ivcp.evaluation.gate import why_unfit
from ivcp.evaluation.intervals import Resamples
from ivcp.evaluation.language.gate import decide_by_metric
from ivcp.evaluation.predict import Disturbed
from ivcp.evaluation.recorded import record_evaluation
from ivcp.evaluation.smoke import find_smoke_clip
from ivcp.evaluation.targets import measure
from ivcp.evaluation.targets.predict import PredictedTargets, predict_targets
from ivcp.evaluation.targets.report import write_files
from ivcp.evaluation.targets.thresholds import fit_thresholds
from ivcp.evaluation.targets.words import said_of
from ivcp.evaluation.unseen import SplitClips, UnseenClips
from ivcp.inference.loop import Samples
from ivcp.records import PreparedIndex, Split
from ivcp.records.comparison import LeftOut, MetricComparison
from ivcp.records.evaluation import SMOKE_CLIP_FILE, GateVerdict, SmokeClip
from ivcp.records.target_evaluation import TargetMetrics
from ivcp.records.thresholds import Thresholds
from ivcp.settings import RunConfig
from ivcp.stages.loaded_model import LoadedModel
from ivcp.tracking import DEFAULT_STORE, find_champion, tracked_run

log = logging.getLogger(__name__)
_FEWEST_CLIPS = 20
"""Validation clips: from fewer, thresholds of classes are mostly chance."""


def evaluate_targets(
    config: RunConfig, *, model: LoadedModel, index: PreparedIndex, output_dir: Path, split: Split, default_store: Path
) -> TargetMetrics:
    """Measures a model on a split of prepared clips and writes metrics, predictions and report.

    A model that the gate refuses is a result, not an error.

    Raises:
        ConfigError: `gate_metric` was not measured.
        ValueError: the model was trained for other labels or video settings, or the split is empty.
        SeenSplitError: it has seen too much of the split.
        NonFiniteError: what it computes is not finite.
    """
    model = model.asking(config.serving.served_prompt)
    if unfit := why_unfit(model, index):
        raise ValueError(f"{model.directory} cannot be evaluated on these prepared clips: {unfit}")
    unseen = UnseenClips.of_split(index, split, model, verify_checksums=config.data.prepared_verify_checksums)
    if not len(unseen.clips):
        raise ValueError("the split has no clips: nothing can be measured; set test_dataset or test_size")
    evaluation = TargetEvaluation(config, model=model, index=index, unseen=unseen, split=split)
    with tracked_run(config, step="evaluation", default_store=default_store) as run:
        run.log_data_set(index, name=", ".join(config.data.dataset), context="evaluation")
        predicted, metrics = evaluation.measure(default_store=default_store)
        title = f"Evaluation of {config.train.run_name or 'an action model'}"
        files = write_files(output_dir, metrics, predicted, evaluation.clips.samples, title=title)
        smoke = evaluation.smoke_clip(predicted, metrics)
        if smoke is not None:
            smoke.write(output_dir / SMOKE_CLIP_FILE)
        record_evaluation(run, metrics, files)
    return metrics


@dataclass(frozen=True)
class _Shown:
    """From which probability on classes are shown, and why nothing could be fitted now."""

    fitted: Thresholds | None
    why_not: str
    values: NDArray[np.float64]
    """(classes,)"""


class TargetEvaluation:
    """One model on the clips of one prepared split that it has not seen."""

    def __init__(
        self, config: RunConfig, *, model: LoadedModel, index: PreparedIndex, unseen: UnseenClips, split: Split
    ) -> None:
        self.config, self.model, self.index, self.split = config, model, index, split
        self.clips, self.left_out = unseen.clips, unseen.left_out

    def measure(self, *, default_store: Path = DEFAULT_STORE) -> tuple[PredictedTargets, TargetMetrics]:
        """Everything that is known of the model."""
        predicted = self._predict(self.model, self.clips)
        shown, labels = self._thresholds(predicted), self.model.labels
        resamples, is_number = Resamples(self.clips.clusters), labels.kind == "value"
        metrics = TargetMetrics(
            target=labels.kind,
            split=self.split,
            model_dir=str(self.model.directory),
            num_clips=len(self.clips),
            num_failed=len(self.clips.failed),
            precision=self.model.precision,
            left_out=self.left_out,
            knows_what_it_saw=self.model.seen.is_complete,
            loss=measure.loss(predicted),
            metrics=measure.figures(predicted, shown.values),
            constant=measure.constant_figures(predicted, self.index, self._training_values()),
            intervals=measure.intervals(predicted, resamples, shown.values),
            num_groups=resamples.num_groups,
            classes=measure.class_table(predicted, shown.values),
            confusion_matrices=measure.confusion_matrices(predicted) if labels.heads else {},
            heads={head.name: head.label_names for head in labels.heads},
            thresholds=shown.fitted,
            why_no_thresholds=shown.why_not,
            scale=labels.scale,
            unit=labels.label_names[0] if is_number else "",
            prompt="\n".join(message.content for message in self.model.prompt),
            disturbed={
                kind: measure.figures(self._predict(self.model, self._disturbed(kind)), shown.values)
                for kind in self.config.evaluation.disturb_frames
            },
            gate=GateVerdict(passed=False, reasons=()),
            test_fingerprint=self._fingerprint(predicted),
            prepared_fingerprint=self.index.fingerprint,
            data_fingerprint=self.index.data_fingerprint,
            seconds=predicted.seconds,
        )
        self._tell_what_is_left_out()
        champion = self._champion(metrics, predicted, default_store)
        gate = decide_by_metric(
            metrics.numbers,
            settings=self.config.evaluation,
            num_measured=metrics.num_clips if labels.kind != "value" else len(predicted),
            champion=champion,
            model_alias=self.config.export.model_alias,
            knows_what_it_saw=metrics.knows_what_it_saw,
        )
        return predicted, metrics.model_copy(update={"gate": gate, "champion": champion})

    def smoke_clip(self, predicted: PredictedTargets, metrics: TargetMetrics) -> SmokeClip | None:
        """A clip that a deployment must answer as evaluation did."""
        row = find_smoke_clip(range(len(predicted)), self.clips.samples, self.model)
        if row is None:
            return None
        said = said_of(predicted, metrics.thresholds, guesses=True)[row]
        return SmokeClip(
            clip_id=predicted.clip_ids[row],
            video=predicted.videos[row],
            prediction=None,
            predicted_name=said,
            logits=tuple(float(value) for value in predicted.outputs[row]),
        )

    def on_same_clips(self, champion: LoadedModel, metric: str, predicted: PredictedTargets) -> OnSameClips | None:
        """Both models on the clips that neither has seen; null where there are none, or one lacks the figure there."""
        unseen = self.clips.unseen_by(champion.seen)
        if not len(unseen.clips):
            return None
        own = predicted.only(unseen.positions, failed=unseen.clips.failed)
        theirs = self._value(champion, self._predict(champion, unseen.clips), metric)
        ours = self._value(self.model, own, metric)
        if theirs is None or ours is None:
            return None
        return OnSameClips(theirs, ours, len(unseen.clips), unseen.left_out)

    def _value(self, model: LoadedModel, predicted: PredictedTargets, metric: str) -> float | None:
        """With the thresholds that the model comes with: those of the new one are fitted now, and as good. Losses of
        numbers are of squares of the training clips' standard deviation, here that of the new model for both."""
        thresholds = self._thresholds(predicted).values if model is self.model else np.array(model.shown_from)
        numbers: dict[str, float | None] = {**measure.figures(predicted, thresholds), "loss": measure.loss(predicted)}
        scale, error = self.model.labels.scale, numbers.get("rmse")
        if scale is not None and error is not None:
            numbers["loss"] = (error / scale.std) ** 2
        return numbers.get(metric)

    def _predict(self, model: LoadedModel, clips: SplitClips) -> PredictedTargets:
        train = self.config.train
        return predict_targets(
            model.predict,
            AskedSamples(clips.samples, model.stage.tokenize, model.processor, model.prompt),
            labels=model.labels,
            batch_size=train.per_device_eval_batch_size,
            failed=clips.failed,
            num_workers=train.dataloader_num_workers,
            source=str(model.directory),
        )

    def _disturbed(self, kind: str) -> SplitClips:
        samples: Samples = Disturbed(self.clips.samples, kind, self.config.train.seed)  # type: ignore[arg-type]
        return replace(self.clips, samples=samples)

    def _thresholds(self, predicted: PredictedTargets) -> _Shown:
        """Fitted now on validation clips, or else those of the model's directory, or 0.5."""
        if self.model.labels.kind != "classes":
            return _Shown(None, "", np.zeros(0))
        if self._fitted is None:
            self._fitted = self._fit(predicted)
        return self._fitted

    _fitted: _Shown | None = None

    def _fit(self, predicted: PredictedTargets) -> _Shown:
        try:
            clips = clips_to_fit_on(
                self.index,
                self.model.seen,
                verify_checksums=self.config.data.prepared_verify_checksums,
                fewest=_FEWEST_CLIPS,
                what="thresholds",
            )
        except NotCalibratedError as error:
            log.warning("thresholds are not fitted: %s", error)
            return _Shown(self.model.thresholds, str(error), np.array(self.model.shown_from))
        on_val = predicted if self.split == "val" else self._predict(self.model, clips)
        fitted = fit_thresholds(on_val.probabilities, on_val.targets > 0, split="val")
        log.info("%s", fitted.summary)
        return _Shown(fitted, "", np.array(fitted.thresholds))

    def _training_values(self) -> NDArray[np.float64] | None:
        is_there = self.model.labels.kind == "value" and self.index.num_clips.get("train")
        return PreparedSamples(self.index, "train").column("value").astype(np.float64) if is_there else None

    def _tell_what_is_left_out(self) -> None:
        """Of the baselines those of one class."""
        left_out = [name for name in self.config.evaluation.baselines if name != "majority"]
        if left_out:
            log.info(
                "baselines: %s are of one class and are left out; the report has an answer that is the same for all "
                "clips, and disturb_frames measures with disturbed ones",
                ", ".join(left_out),
            )

    def _champion(
        self, metrics: TargetMetrics, predicted: PredictedTargets, default_store: Path
    ) -> MetricComparison | None:
        evaluation = self.config.evaluation
        champion = find_champion(self.config, default_store=default_store) if evaluation.compare_with_champion else None
        if champion is None:
            return None
        names = (evaluation.gate_metric,) if evaluation.gate_metric else self.model.stage.compared_by
        metric = next((name for name in names if name in metrics.numbers), None)
        if metric is None:
            detail = f"of what such models are compared by ({', '.join(names)}) nothing was measured"
            return MetricComparison(name=champion.name, version=champion.version, how="not_comparable", detail=detail)
        is_same = champion.test_fingerprint == metrics.test_fingerprint
        is_same &= metric != "loss" or self.model.labels.kind != "value"  # that one is on the champion's scale
        theirs = champion.recorded(metric) if is_same else None
        ours = metrics.numbers[metric]
        found = compare_with_champion(
            champion,
            model=self.model,
            recorded=None if theirs is None else OnSameClips(theirs, ours, metrics.num_clips, LeftOut()),
            machine=self.config.model,
            device=self.model.compute.device.type,
            why_unfit=lambda other: why_unfit(other, self.index),
            measure_both=lambda other: self.on_same_clips(other, metric, predicted),
        )
        both = {"value": found.both and found.both.champion, "new_value": found.both and found.both.new}
        return MetricComparison(metric=metric, **both, **found.described())

    def _fingerprint(self, predicted: PredictedTargets) -> str:
        """A hash of the clips that were measured, what they are labelled with, and how they were prepared."""
        rows: list[Sequence[object]] = [
            [clip_id, target] for clip_id, target in zip(predicted.clip_ids, predicted.targets.tolist(), strict=True)
        ]
        failed = zip(predicted.failed, predicted.failed_targets.tolist(), strict=True)
        rows += [[clip.clip_id, target] for clip, target in failed]
        history = "unseen" if self.model.seen.is_complete else "not known"
        described = [history, self.index.fingerprint, self.model.labels.kind, sorted(rows, key=str)]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]
