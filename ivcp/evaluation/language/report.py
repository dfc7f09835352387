"""The report on a model that writes: its numbers, and answers beside the frames that it saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ivcp.evaluation.language.answers import Answer
from ivcp.evaluation.language.sound_files import sound_file
from ivcp.evaluation.report import film_strip, templates
from ivcp.evaluation.text_metrics import TextScore
from ivcp.inference.loop import Samples
from ivcp.records import QuarantinedClip
from ivcp.records.language_evaluation import LanguageMetrics
from ivcp.storage.atomic import write_whole

EXAMPLES_SHOWN = 6
"""Of each kind."""


@dataclass(frozen=True)
class Example:
    """An answer as the report shows it."""

    answer: Answer
    score: TextScore
    strips: tuple[str, ...]
    """Of each video some frames side by side, and each image, as a data: URI of a JPEG."""
    sounds: tuple[str, ...] = ()
    """What was heard, the first half minute of each, as a data: URI of a WAV file."""


@dataclass(frozen=True)
class Examples:
    """Answers of one kind."""

    title: str
    meaning: str
    examples: tuple[Example, ...]


def choose_examples(
    answers: Sequence[Answer], samples: Samples, *, seed: int, rate: int = 16_000
) -> tuple[Examples, ...]:
    """The best answers, the worst, and random ones of the others; each comes once, and kinds that are empty do not.

    By the F of ROUGE-L, which knows words in all languages that jieba cuts, and among equal ones by BLEU. Sounds
    have `rate` samples a second.
    """
    scores = [answer.score for answer in answers]
    order = sorted(range(len(answers)), key=lambda n: (-scores[n].rouge_l, -scores[n].bleu_4, n))
    shown = min(EXAMPLES_SHOWN, (len(order) + 2) // 3)
    worst = [] if len(order) <= shown else order[-shown:][::-1]
    others = order[shown : len(order) - shown]
    drawn = np.random.default_rng([seed, len(others)]).permutation(len(others))[:EXAMPLES_SHOWN]
    kinds = (
        ("Worst answers", "Those with the fewest words of their reference in its order (ROUGE-L).", worst),
        (
            "Random answers",
            "Drawn from all others: what an answer is usually like.",
            [others[n] for n in sorted(drawn)],
        ),
        ("Best answers", "Those that are nearest to their reference.", order[:shown]),
    )
    return tuple(
        Examples(title, meaning, tuple(_example(answers[n], scores[n], samples, rate) for n in chosen))
        for title, meaning, chosen in kinds
        if chosen
    )


def write_language_report(
    path: Path,
    *,
    metrics: LanguageMetrics,
    kinds: Sequence[Examples],
    failed: Sequence[QuarantinedClip],
    title: str,
) -> None:
    """Renders `report.html`; it refers to no other file."""
    page = templates().get_template("language/report_template.html")
    write_whole(path, page.render(title=title, metrics=metrics, kinds=kinds, failed=failed))


def _example(answer: Answer, score: TextScore, samples: Samples, rate: int) -> Example:
    media = samples[answer.position].media
    strips = tuple(film_strip(medium.frames) for medium in media if len(medium.frames))
    sounds = tuple(sound_file(each.waveform, rate=rate) for each in media if each.waveform is not None)
    return Example(answer, score, strips, sounds)
