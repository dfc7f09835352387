"""How near written texts are to their references.

BLEU-4 and ROUGE are LLaMA-Factory's (`ComputeSimilarity`), number for number, so that figures can be compared: words as
jieba cuts them, rouge_chinese, BLEU of characters by nltk. What others compare with stands beside them: sacreBLEU,
exact match, and SQuAD's F1 of words.
"""

from __future__ import annotations

import logging
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ivcp.records.language_evaluation import TextMetrics

_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_ROUGE = ("rouge-1", "rouge-2", "rouge-l")
_DIGITS = 4


@dataclass(frozen=True)
class TextScore:
    """How near one text is to its reference: as in `TextMetrics`."""

    bleu_4: float
    rouge_1: float
    rouge_2: float
    rouge_l: float
    is_exact: bool
    token_f1: float


def score_text(prediction: str, reference: str) -> TextScore:
    """The metrics of one text."""
    rouge = _rouge(prediction, reference)
    return TextScore(
        bleu_4=character_bleu(prediction, reference),
        rouge_1=rouge["rouge-1"],
        rouge_2=rouge["rouge-2"],
        rouge_l=rouge["rouge-l"],
        is_exact=is_exact(prediction, reference),
        token_f1=token_f1(prediction, reference),
    )


def measure_texts(predictions: Sequence[str], references: Sequence[str], *, num_missing: int = 0) -> TextMetrics:
    """The metrics of texts with a reference each; at least one, or one that is missing.

    `num_missing` texts could not be written: they count as wrong, but for sacreBLEU, which has no reference of them.
    """
    scores = [score_text(prediction, reference) for prediction, reference in zip(predictions, references, strict=True)]
    count = len(scores) + num_missing
    bleu, signature = _sacrebleu(predictions, references)
    return TextMetrics(
        bleu_4=round(sum(score.bleu_4 for score in scores) / count, _DIGITS),
        rouge_1=round(sum(score.rouge_1 for score in scores) / count, _DIGITS),
        rouge_2=round(sum(score.rouge_2 for score in scores) / count, _DIGITS),
        rouge_l=round(sum(score.rouge_l for score in scores) / count, _DIGITS),
        sacrebleu=round(bleu, _DIGITS),
        sacrebleu_signature=signature,
        exact_match=sum(score.is_exact for score in scores) / count,
        token_f1=sum(score.token_f1 for score in scores) / count,
    )


def character_bleu(prediction: str, reference: str) -> float:
    """BLEU-4 of characters with nltk's third smoothing (Chen and Cherry, WMT 2014), 0 to 100."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smoothing = SmoothingFunction().method3
    return round(100 * float(sentence_bleu([list(reference)], list(prediction), smoothing_function=smoothing)), _DIGITS)


def is_exact(prediction: str, reference: str) -> bool:
    """Whether both are the same but for spaces around them."""
    return prediction.strip() == reference.strip()


def token_f1(prediction: str, reference: str) -> float:
    """Harmonic mean of precision and recall of words, 0 to 1, as SQuAD's evaluation script v1.1 has it.

    Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (arXiv:1606.05250). Two texts
    without a word are equal.
    """
    words, wanted = _words(prediction), _words(reference)
    if not words or not wanted:
        return float(words == wanted)
    common = sum((Counter(words) & Counter(wanted)).values())
    return 2 * common / (len(words) + len(wanted))


def _words(text: str) -> list[str]:
    """SQuAD's normalisation: lower case, no punctuation, no articles."""
    without_punctuation = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", without_punctuation).split()


def _rouge(prediction: str, reference: str) -> dict[str, float]:
    from rouge_chinese import Rouge

    hypothesis, wanted = _cut(prediction), _cut(reference)
    if not hypothesis.split() or not wanted.split():
        return dict.fromkeys(_ROUGE, 0.0)
    (scores,) = Rouge().get_scores(hypothesis, wanted)
    return {name: round(100 * scores[name]["f"], _DIGITS) for name in _ROUGE}


def _cut(text: str) -> str:
    import jieba

    jieba.setLogLevel(logging.WARNING)
    return " ".join(jieba.cut(text))


def _sacrebleu(predictions: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """BLEU of the whole, and how it was computed (Post, arXiv:1804.08771); Chinese words are characters there."""
    from sacrebleu.metrics import BLEU

    bleu = BLEU(tokenize="zh" if any(map(_CHINESE.search, references)) else "13a")
    score = bleu.corpus_score(list(predictions), [list(references)]).score if references else 0.0
    return float(score), str(bleu.get_signature()) if references else "nothing was compared"
