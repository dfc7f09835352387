"""What the language stages come to on the sample clips, in one table: the last command of `make demo-language`.

    python benchmarks/language_stages.py runs/language

reads the evaluations of the runs in that folder, asks the base model the same questions without any training, and what
each model still knows of English. The last line is JSON.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ivcp.cli.terminal import say, show_table
from ivcp.demo.actions import ACTIONS, REVERSED_PAIRS
from ivcp.demo.language.examine import perplexity
from ivcp.evaluation.baselines import zero_shot
from ivcp.inference.chat import Chat
from ivcp.inference.compute import Compute
from ivcp.inference.generation import Writer, prompt_sample
from ivcp.models.load import load_base_model
from ivcp.models.processor import Processor
from ivcp.records import METRICS_FILE, read_lines
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.records.language_evaluation import (
    GENERATED_FILE,
    GeneratedText,
    LanguageMetrics,
    disturbed_file,
)
from ivcp.settings import GenerationConfig, ModelConfig, VideoConfig
from ivcp.video import load_clip

log = logging.getLogger(__name__)

STAGES = {
    "action_cls": "action_cls: classes",
    "sft": "sft: sentences",
    "dpo": "sft, then dpo",
    "sft_half": "sft, broken off",
    "grpo": "sft broken off, then grpo",
}
"""Folder of a run → what it is, in the table's order."""
QUESTION = "What is the capital of France?"
_EVALUATION, _MODEL = Path("latest/evaluation"), Path("latest/model")
_SENTENCE = {name: action.sentence for name, action in ACTIONS.items()}
_PARTNER = {_SENTENCE[one]: _SENTENCE[other] for pair in REVERSED_PAIRS for one, other in (pair, pair[::-1])}
_NUM_FRAMES, _BATCH = 8, 20


@dataclass(frozen=True)
class Outcome:
    """One model on the test clips, whose performers it has not seen; shares from 0 to 1."""

    name: str
    right: float | None
    """Of all clips; null where it was asked about pairs alone."""
    right_by_order: float
    """Of the clips whose action differs from another one in the order of time only."""
    partner_when_reversed: float | None
    """Of the same clips with their frames reversed: answers that name the other action of the pair."""
    pair_accuracy: float | None = None
    """Of pairs: those whose right sentence gained on the wrong one, against the model that training started from."""
    margin: float | None = None
    """By how much, on average, in the units of `pref_beta` times log-probability."""
    perplexity: float | None = None
    """Of a fixed English text."""
    answer: str | None = None
    """To a question that has nothing to do with clips."""


def outcomes(runs: Path, base: Path, data: Path) -> Iterator[Outcome]:
    """What each run in a folder came to, and before them the base model.

    Args:
        runs: A folder for each of `STAGES`, with the run `latest` in it.
        base: What they started from.
        data: The sample data's folder.

    Raises:
        FileNotFoundError: a run is missing.
    """
    yield _zero_shot(base, data)
    for folder, name in STAGES.items():
        evaluation = runs / folder / _EVALUATION
        if not (evaluation / METRICS_FILE).is_file():
            raise FileNotFoundError(f"{evaluation} has no {METRICS_FILE}: run pipelines/configs/language/{folder}.yaml")
        is_classes = folder == "action_cls"
        yield _of_classes(name, evaluation) if is_classes else _of_sentences(name, evaluation, runs / folder / _MODEL)


def show(found: Sequence[Outcome]) -> None:
    """Prints the table, and all of it as JSON in the last line."""
    table = Table("model", "right", "by order", "partner when reversed", "pairs", "margin", "perplexity", "answer")
    for each in found:
        shares = (each.right, each.right_by_order, each.partner_when_reversed, each.pair_accuracy, each.margin)
        cells = ["–" if share is None else f"{share:.3f}" for share in shares]
        known = "–" if each.perplexity is None else f"{each.perplexity:.2f}"
        table.add_row(each.name, *cells, known, each.answer or "–")
    show_table(table)
    say(json.dumps([asdict(each) for each in found], ensure_ascii=False))


def _of_classes(name: str, evaluation: Path) -> Outcome:
    metrics = EvaluationMetrics.read(evaluation / METRICS_FILE)
    (reversed_,) = (row for row in metrics.disturbed if row.kind == "reversed")
    assert metrics.reversed_pairs_accuracy is not None
    return Outcome(name, metrics.top1_accuracy, metrics.reversed_pairs_accuracy, reversed_.predicted_partner)


def _of_sentences(name: str, evaluation: Path, model_dir: Path) -> Outcome:
    metrics = LanguageMetrics.read(evaluation / METRICS_FILE)
    written = read_lines(evaluation / GENERATED_FILE, GeneratedText)
    backwards = read_lines(evaluation / disturbed_file("reversed"), GeneratedText)
    by_order = [row for row in written if row.label in _PARTNER]
    model, processor = _loaded(model_dir)
    return Outcome(
        name,
        right=None if len(by_order) == len(written) else _share(row.predict == row.label for row in written),
        right_by_order=_share(row.predict == row.label for row in by_order),
        partner_when_reversed=_share(row.predict == _PARTNER[row.label] for row in backwards if row.label in _PARTNER),
        pair_accuracy=metrics.numbers.get("rewards/accuracies"),
        margin=metrics.numbers.get("rewards/margins"),
        perplexity=perplexity(model, processor.processor.tokenizer),
        answer=_plain_answer(model, processor),
    )


def _zero_shot(base: Path, data: Path) -> Outcome:
    """The base model, which is asked for the right one of all sentences and can write no other text."""
    model, processor = _loaded(base)
    sentences = tuple(_SENTENCE.values())
    rows = json.loads((data / "sample_test.json").read_text(encoding="utf-8"))
    samples = [
        prompt_sample(
            processor,
            zero_shot.question(sentences, system=()),
            [load_clip(str(data / row["videos"][0]), processor=processor)],
            row["videos"][0],
        )
        for row in rows
    ]
    chosen = zero_shot.answers(
        model, processor, samples, sentences, batch_size=_BATCH, compute=Compute.here(), num_workers=0
    )
    said = [(sentences[number], _SENTENCE[row["action_label"]]) for number, row in zip(chosen, rows, strict=True)]
    return Outcome(
        "zero-shot: the base model",
        right=_share(answer == right for answer, right in said),
        right_by_order=_share(answer == right for answer, right in said if right in _PARTNER),
        partner_when_reversed=None,
        perplexity=perplexity(model, processor.processor.tokenizer),
        answer=_plain_answer(model, processor),
    )


def _loaded(directory: Path) -> tuple[Any, Processor]:
    model = load_base_model(directory, settings=ModelConfig()).eval()
    return model, Processor.from_pretrained(directory, video=VideoConfig(video_num_frames=_NUM_FRAMES))


def _plain_answer(model: Any, processor: Processor) -> str:
    writer = Writer(model, processor, GenerationConfig(do_sample=False, max_new_tokens=16))
    return Chat(writer, Compute.here()).ask(QUESTION)


def _share(hits: Iterator[bool]) -> float:
    counted = list(hits)
    return sum(counted) / len(counted)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    show(list(outcomes(Path(sys.argv[1]), Path("models/smollm2-video"), Path("data/sample"))))
