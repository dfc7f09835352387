"""What evaluation measured of a model that writes, as its `metrics.json` holds it, and the texts that it wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from ivcp.records.annotations import Message
from ivcp.records.comparison import MetricComparison
from ivcp.records.evaluation import Disturbance, EvaluationMetrics, MeasuredModel, Shown
from ivcp.records.record import Record
from ivcp.records.target_evaluation import TargetMetrics

GENERATED_FILE = "generated_predictions.jsonl"
"""A `GeneratedText` per line, in LLaMA-Factory's form."""


def disturbed_file(kind: Disturbance) -> str:
    """The same of disturbed frames."""
    return f"generated_predictions_{kind}.jsonl"


PREDICT_RESULTS_FILE = "predict_results.json"
"""The text metrics under LLaMA-Factory's names."""
SMOKE_QUESTION_FILE = "smoke_question.json"

TEXT_METRIC_NAMES = ("bleu-4", "rouge-1", "rouge-2", "rouge-l", "sacrebleu", "exact_match", "token_f1")


class SmokeQuestion(Record):
    """`smoke_question.json`: a conversation that a deployment must answer, or score, as evaluation did."""

    clip_id: str
    video: str | None
    """Path or s3:// URI of a whole video file, for the conversation's one tag; null where it has none."""
    messages: tuple[Message, ...]
    """Ending with the user's turn, or with the answer that is scored."""
    answer: str | None = None
    """How the answer begins: as far as the model was sure of each token. Null of a model that scores."""
    num_tokens: int = 0
    """Of that beginning."""
    score: float | None = None
    """Null of a model that writes."""


class GeneratedText(Record):
    """A line of `generated_predictions.jsonl`."""

    prompt: str
    """What the model read, with its special tokens."""
    predict: str
    """What it wrote."""
    label: str
    """The answer of the row."""


class TextMetrics(Record):
    """How near texts are to their references, on average."""

    bleu_4: float
    """0 to 100, of characters, each text alone: LLaMA-Factory's `bleu-4`."""
    rouge_1: float
    """0 to 100, of words as jieba cuts them."""
    rouge_2: float
    """0 to 100."""
    rouge_l: float
    """0 to 100."""
    sacrebleu: float
    """0 to 100, of the whole split, as papers have it."""
    sacrebleu_signature: str
    """How that was computed: sacreBLEU's own words for it."""
    exact_match: float
    """Share of texts that are their reference, but for spaces around them."""
    token_f1: float
    """0 to 1: words that a text shares with its reference, without articles and punctuation, as SQuAD counts them."""

    def named(self) -> dict[str, float]:
        """The numbers under the names that LLaMA-Factory and others give them."""
        values = (
            *(self.bleu_4, self.rouge_1, self.rouge_2, self.rouge_l),
            *(self.sacrebleu, self.exact_match, self.token_f1),
        )
        return dict(zip(TEXT_METRIC_NAMES, values, strict=True))


class GenerationMetrics(Record):
    """The answers that a model wrote to the prompts of a split."""

    text: TextMetrics
    num_answers: int
    """Prompts that have an answer to compare with, those of clips that could not be decoded included: they count as
    answers without a word."""
    num_cut: int
    """Answers that did not end within `max_new_tokens`."""
    how: str
    """How tokens were chosen, in a few words."""
    seconds: float
    """Time to write them."""

    def predict_results(self, *, num_batches: int) -> dict[str, float]:
        """`predict_results.json`, as LLaMA-Factory has it."""
        written = {f"predict_{name}": value for name, value in self.text.named().items()}
        seconds = max(self.seconds, 1e-9)
        return written | {
            "predict_runtime": round(self.seconds, 4),
            "predict_samples_per_second": round(self.num_answers / seconds, 3),
            "predict_steps_per_second": round(num_batches / seconds, 3),
        }


def numbers_of(
    loss: float | None, metrics: Mapping[str, float], generation: GenerationMetrics | None
) -> dict[str, float]:
    """All that was measured, by name."""
    of_loss = {} if loss is None else {"loss": loss}
    return of_loss | dict(metrics) | (generation.text.named() if generation else {})


class LanguageMetrics(MeasuredModel):
    """`metrics.json` of a model that writes, or that tells answers apart."""

    kind: Literal["language"] = "language"
    """What tells it from a classifier's."""
    stage: str
    loss: float | None
    """As validation has it, over all items that the stage's loss is the mean over; null where no clip was decoded."""
    metrics: dict[str, float]
    """What the stage measures: `perplexity` and `token_accuracy` of answers, the accuracy and margins of pairs, the
    `reward` of what is written."""
    generation: GenerationMetrics | None = None
    """Null unless `predict_with_generate` asks for it."""
    disturbed: dict[Disturbance, dict[str, float]] = Field(default_factory=dict)
    """The same numbers with disturbed frames, where `disturb_frames` asks for it: a model that does not look at its
    frames has the same ones."""
    champion: MetricComparison | None = None
    """Null when there is none, or it was not asked for."""

    @property
    def numbers(self) -> dict[str, float]:
        """All of them by the names that `gate_metric` knows."""
        return numbers_of(self.loss, self.metrics, self.generation)

    @property
    def names(self) -> tuple[str, ...]:
        """Those of `numbers`, the most telling one first: of texts before all others."""
        texts = self.generation.text.named() if self.generation else {}
        return tuple(sorted(self.numbers, key=lambda name: (name not in texts, name != "exact_match")))

    @property
    def shown(self) -> tuple[Shown, ...]:
        """What the command line and the report show."""
        return tuple(Shown(name.replace("_", " "), self.numbers[name]) for name in self.names)

    @property
    def calibration(self) -> None:
        """It gives no confidences."""
        return None

    @property
    def summary(self) -> str:
        """What it came to, in one line."""
        named = ", ".join(f"{measure.words} {measure.value:.3f}" for measure in self.shown[:3])
        return f"{named or 'nothing'} on {self.num_clips} clips{self.caveats}"

    def headline(self) -> dict[str, float]:
        """The numbers for MLflow and the registry, by name."""
        disturbed = {
            f"{kind}_{name}": value for kind, numbers in self.disturbed.items() for name, value in numbers.items()
        }
        return (
            self.numbers
            | disturbed
            | {
                "num_clips": float(self.num_clips),
                "num_failed": float(self.num_failed),
                "num_left_out": float(self.left_out.total),
            }
        )


Measured = EvaluationMetrics | LanguageMetrics | TargetMetrics
"""What `metrics.json` holds."""


def read_metrics(path: Path) -> Measured:
    """Reads `metrics.json` of any kind.

    Raises:
        FileNotFoundError: evaluation has not run, or its folder is incomplete.
        ValueError: the file holds no metrics.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON ({error}): evaluate again") from error
    kinds: dict[object, type[Measured]] = {"language": LanguageMetrics, "targets": TargetMetrics}
    kind = kinds.get(found.get("kind") if isinstance(found, dict) else None, EvaluationMetrics)
    return kind.read(path)
