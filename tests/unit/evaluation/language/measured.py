"""Small records and answers for the tests of what is shown of a model that writes."""

from __future__ import annotations

from typing import Any

from ivcp.evaluation.language.answers import Answer
from ivcp.evaluation.text_metrics import measure_texts
from ivcp.records.evaluation import GateVerdict
from ivcp.records.language_evaluation import GenerationMetrics, LanguageMetrics


def answer(number: int, written: str, reference: str, **others: Any) -> Answer:
    return Answer(
        position=number,
        sample_id=f"d:{number}",
        source=f"{number}.mp4",
        prompt=f"<|im_start|>user\nWhat? {number}<|im_end|>\n",
        question=f"user What? {number}",
        written=written,
        reference=reference,
        **({"is_cut": False} | others),
    )


def measured(*, has_answers: bool = True, **others: Any) -> LanguageMetrics:
    generation = GenerationMetrics(
        text=measure_texts(["wave", "sit <b>down"], ["wave", "stand up"]),
        num_answers=2,
        num_cut=1,
        how="the likeliest token, at most 8 tokens",
        seconds=2.0,
    )
    found = {
        "split": "test",
        "model_dir": "/models/a",
        "num_clips": 2,
        "num_failed": 0,
        "knows_what_it_saw": True,
        "gate": GateVerdict(passed=False, reasons=("exact_match 0.5 is below gate_minimum 0.9",)),
        "test_fingerprint": "t",
        "prepared_fingerprint": "p",
        "data_fingerprint": "d",
        "seconds": 3.0,
        "stage": "sft",
        "loss": 0.5,
        "metrics": {"token_accuracy": 0.75, "perplexity": 1.6487},
        "generation": generation if has_answers else None,
    }
    return LanguageMetrics(**found | others)
