"""The sample data set with other labels than one class: several at once, a class of each of two heads, or a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ivcp.demo.built_directory import build_once
from ivcp.demo.clip import sample_performer, write_clip
from ivcp.demo.contact_sheet import draw_contact_sheet
from ivcp.demo.labelled_clip import HEADS, MOTIONS, LabelKind, Motion, draw_labelled_clip, motion_of
from ivcp.demo.sample_data import (
    NUM_TEST_PERFORMERS,
    NUM_TRAIN_PERFORMERS,
    TEST_DATASET,
    TRAIN_DATASET,
    SampleDataSet,
    registration,
    write_in_processes,
    write_json,
)

GENERATOR_VERSION = 1
"""Goes up whenever the same seed would give other clips or rows."""
SETTINGS: dict[LabelKind, str] = {
    "multi": "problem_type=multi_label_classification",
    "heads": f"action_heads={','.join(HEADS)}",
    "speed": "problem_type=regression",
}
"""What a run on each is told."""
_QUESTIONS: dict[LabelKind, str] = {
    "multi": "What does the person do? It may be several things at once.",
    "heads": "What does the person do, and where does it go?",
    "speed": "How fast does the person walk?",
}
_FEWEST, _ON_SHEET = 18, 3


@dataclass(frozen=True)
class LabelledPlan:
    """One clip that is to be drawn."""

    kind: LabelKind
    split: Literal["train", "test"]
    index: int
    performer: int

    @property
    def video(self) -> str:
        """Path of the file inside the data set."""
        return f"videos/{self.split}/{self.kind}_{self.index:04d}.mp4"

    def motion(self, seed: int) -> tuple[Motion, dict[str, Any]]:
        """What it shows, and the columns of its row that say so."""
        count = NUM_TRAIN_PERFORMERS if self.split == "train" else NUM_TEST_PERFORMERS
        return motion_of(self.kind, self.index, self.index // count, self._rng(seed, 5))

    def draw(self, seed: int) -> tuple[Any, int]:
        """Its frames and their rate."""
        return draw_labelled_clip(self.motion(seed)[0], sample_performer(seed, self.performer), self._rng(seed, 6))

    def row(self, seed: int) -> dict[str, Any]:
        """As users write it."""
        return {
            "conversations": [{"from": "human", "value": f"<video>{_QUESTIONS[self.kind]}<ACTION>"}],
            "videos": [self.video],
            **self.motion(seed)[1],
            "group": f"performer_{self.performer:02d}",
        }

    def _rng(self, seed: int, purpose: int) -> np.random.Generator:
        """A source of randomness of its own: clips may be drawn in any order."""
        return np.random.default_rng([seed, purpose, self.split == "test", self.index])


def generate_labelled_data(
    output_dir: Path,
    kind: LabelKind,
    *,
    num_train_clips: int = 1000,
    num_test_clips: int = 300,
    seed: int = 0,
    workers: int = 2,
) -> SampleDataSet:
    """Writes the data set into a directory, or reuses the one that is there with the same parameters.

    `multi` has lists of one to three of five motions, `heads` an action and a direction, `speed` standing heights a
    second; performers of the test clips are not those of the training clips.

    Raises:
        ValueError: too few clips in a split.
        FileExistsError: `output_dir` holds files that were not generated here.
    """
    if min(num_train_clips, num_test_clips) < _FEWEST:
        raise ValueError(f"every split needs {_FEWEST} clips, but one gets {min(num_train_clips, num_test_clips)}")
    parameters: dict[str, str | int] = {
        "labels": kind,
        "generator_version": GENERATOR_VERSION,
        "num_train_clips": num_train_clips,
        "num_test_clips": num_test_clips,
        "seed": seed,
    }
    plans = [
        *(LabelledPlan(kind, "train", n, n % NUM_TRAIN_PERFORMERS) for n in range(num_train_clips)),
        *(LabelledPlan(kind, "test", n, NUM_TRAIN_PERFORMERS + n % NUM_TEST_PERFORMERS) for n in range(num_test_clips)),
    ]
    build = partial(_write, kind=kind, plans=plans, seed=seed, workers=workers)
    build_once(output_dir, marker="sample.json", parameters=parameters, build=build)
    names = {"multi": MOTIONS, "heads": tuple(HEADS), "speed": ("speed",)}[kind]
    return SampleDataSet(output_dir, num_train_clips, num_test_clips, names, ())


def _write(output_dir: Path, *, kind: LabelKind, plans: Sequence[LabelledPlan], seed: int, workers: int) -> None:
    for split in ("train", "test"):
        (output_dir / "videos" / split).mkdir(parents=True)
    write_in_processes(partial(_write_clip, output_dir=output_dir, seed=seed), plans, workers)
    for name, split in ((TRAIN_DATASET, "train"), (TEST_DATASET, "test")):
        write_json(output_dir / f"{name}.json", [plan.row(seed) for plan in plans if plan.split == split])
    if kind == "multi":
        write_json(output_dir / "labels.json", {"label_names": MOTIONS})
    if kind == "heads":
        write_json(output_dir / "labels.json", {"heads": HEADS})
    shown: dict[str, list[Any]] = {}
    for plan in plans[: 6 * _ON_SHEET]:
        words = _in_words(plan.motion(seed)[1])
        if len(shown) < 8 or words in shown:
            shown.setdefault(words, []).append(plan.draw(seed)[0])
    draw_contact_sheet({words: clips[:_ON_SHEET] for words, clips in shown.items()}).save(
        output_dir / "contact_sheet.png"
    )
    write_json(output_dir / "dataset_info.json", {name: registration(name) for name in (TRAIN_DATASET, TEST_DATASET)})


def _in_words(columns: dict[str, Any]) -> str:
    values = [", ".join(value) if isinstance(value, list) else str(value) for value in columns.values()]
    return ", ".join(values)


def _write_clip(plan: LabelledPlan, *, output_dir: Path, seed: int) -> None:
    frames, fps = plan.draw(seed)
    write_clip(output_dir / plan.video, frames, fps)
