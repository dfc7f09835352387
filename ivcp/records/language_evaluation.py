"""What evaluation measured of a model that writes, as its `metrics.json` holds it, and the texts that it wrote."""

from __future__ import annotations

from ivcp.records.record import Record

GENERATED_FILE = "generated_predictions.jsonl"
"""A `GeneratedText` per line, in LLaMA-Factory's form."""
PREDICT_RESULTS_FILE = "predict_results.json"
"""The text metrics under LLaMA-Factory's names."""


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
        return {
            "bleu-4": self.bleu_4,
            "rouge-1": self.rouge_1,
            "rouge-2": self.rouge_2,
            "rouge-l": self.rouge_l,
            "sacrebleu": self.sacrebleu,
            "exact_match": self.exact_match,
            "token_f1": self.token_f1,
        }
