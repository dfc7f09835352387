"""The metrics against the formulas as their sources have them, written down from the libraries alone."""

import collections
import re
import string

import jieba
import numpy as np
import pytest
import sacrebleu
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_chinese import Rouge

from ivcp.evaluation.text_metrics import character_bleu, is_exact, measure_texts, token_f1

PAIRS = (
    ("The person waves.", "The person waves a hand."),
    ("视频中的人正在跑步。", "视频中的人在走路。"),
    ("wave", "wave"),
    ("a", "b"),
    ("", "The person sits down."),
    ("The person sits down.", ""),
    ("", ""),
    ("   ", "sit"),
    ("He opens the door, slowly; then he closes it again.", "He closes the door."),
    ("坐下", "坐下"),
    ("one\ntwo  three", "one two three"),
)


def llama_factory(pairs):
    """`ComputeSimilarity`, as the documents describe it."""
    scores = collections.defaultdict(list)
    for pred, label in pairs:
        hypothesis, reference = list(jieba.cut(pred)), list(jieba.cut(label))
        if not " ".join(hypothesis).split() or not " ".join(reference).split():
            result = {name: {"f": 0.0} for name in ("rouge-1", "rouge-2", "rouge-l")}
        else:
            result = Rouge().get_scores(" ".join(hypothesis), " ".join(reference))[0]
        for name, value in result.items():
            scores[name].append(round(value["f"] * 100, 4))
        bleu = sentence_bleu([list(label)], list(pred), smoothing_function=SmoothingFunction().method3)
        scores["bleu-4"].append(round(bleu * 100, 4))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def squad_f1(prediction, reference):
    """`f1_score` of SQuAD's script v1.1."""

    def normalize(text):
        text = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())

    prediction_tokens, truth_tokens = normalize(prediction).split(), normalize(reference).split()
    num_same = sum((collections.Counter(prediction_tokens) & collections.Counter(truth_tokens)).values())
    if num_same == 0:
        return 0
    precision, recall = num_same / len(prediction_tokens), num_same / len(truth_tokens)
    return (2 * precision * recall) / (precision + recall)


@pytest.mark.parametrize("pairs", [PAIRS, *([pair] for pair in PAIRS)])
def test_bleu_and_rouge_are_llama_factorys(pairs):
    found = measure_texts(*zip(*pairs, strict=True)).named()
    for name, value in llama_factory(pairs).items():
        assert found[name] == pytest.approx(value, abs=5e-5), name


def test_they_tell_texts_apart():
    near, far = ("The person waves a hand.", "The person waves."), ("The person waves a hand.", "A cat sleeps.")
    for name in ("bleu-4", "rouge-1", "rouge-2", "rouge-l", "sacrebleu", "token_f1"):
        assert (
            measure_texts(*zip(near, strict=True)).named()[name] > measure_texts(*zip(far, strict=True)).named()[name]
        )


@pytest.mark.parametrize(("prediction", "reference"), [pair for pair in PAIRS if pair != ("", "")])
def test_the_f1_of_words_is_squads(prediction, reference):
    assert token_f1(prediction, reference) == pytest.approx(squad_f1(prediction, reference))


def test_two_texts_without_words_are_equal():
    assert token_f1("", "the") == 1.0
    assert token_f1("", "person") == 0.0


@pytest.mark.parametrize("language", ["english", "chinese"])
def test_sacrebleu_is_the_commands(language):
    pairs = [PAIRS[0], PAIRS[8]] if language == "english" else [PAIRS[1], PAIRS[9]]
    predictions, references = zip(*pairs, strict=True)
    tokenize = "13a" if language == "english" else "zh"
    expected = sacrebleu.corpus_bleu(list(predictions), [list(references)], tokenize=tokenize)
    found = measure_texts(predictions, references)
    assert found.sacrebleu == pytest.approx(expected.score, abs=1e-4)
    assert f"tok:{tokenize}" in found.sacrebleu_signature


def test_spaces_around_a_text_are_no_difference():
    assert is_exact(" wave\n", "wave")
    assert not is_exact("Wave", "wave")
    assert measure_texts(["wave ", "sit"], ["wave", "stand"]).exact_match == 0.5


def test_the_best_is_a_hundred_for_a_long_text():
    text = "The person opens the door and goes out."
    assert character_bleu(text, text) == 100.0
    assert measure_texts([text], [text]).sacrebleu == 100.0
