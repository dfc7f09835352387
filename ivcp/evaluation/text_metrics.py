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
from statistics import fmean

from ivcp.records.language_evaluation import TextMetrics
from ivcp.settings import ConfigError

_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_ROUGE = ("rouge-1", "rouge-2", "rouge-l")
_DIGITS = 4


def check_text_packages() -> None:
    """Checks that the packages are installed that compare texts.

    Raises:
        ConfigError: they are not.
    """
    try:
        import jieba
        import nltk
        import rouge_chinese
        import sacrebleu
    except ImportError as error:
        raise ConfigError(
            f"predict_with_generate compares texts, and {error.name} is not installed: pip install 'ivcp[text]', or "
            "remove predict_with_generate"
        ) from error
    del jieba, nltk, rouge_chinese, sacrebleu


def measure_texts(predictions: Sequence[str], references: Sequence[str]) -> TextMetrics:
    """The metrics of texts, at least one, with a reference each."""
    pairs = list(zip(predictions, references, strict=True))
    rouge = [_rouge(prediction, reference) for prediction, reference in pairs]
    bleu, signature = _sacrebleu(predictions, references)
    return TextMetrics(
        bleu_4=round(fmean(character_bleu(prediction, reference) for prediction, reference in pairs), _DIGITS),
        rouge_1=round(fmean(row["rouge-1"] for row in rouge), _DIGITS),
        rouge_2=round(fmean(row["rouge-2"] for row in rouge), _DIGITS),
        rouge_l=round(fmean(row["rouge-l"] for row in rouge), _DIGITS),
        sacrebleu=round(bleu, _DIGITS),
        sacrebleu_signature=signature,
        exact_match=fmean(is_exact(prediction, reference) for prediction, reference in pairs),
        token_f1=fmean(token_f1(prediction, reference) for prediction, reference in pairs),
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
    return float(bleu.corpus_score(list(predictions), [list(references)]).score), str(bleu.get_signature())
