"""The sample data set: generated clips of a figure in action, with annotations in the users' format."""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from ivcp.demo.actions import ACTIONS, LABEL_NAMES, REVERSED_PAIRS
from ivcp.demo.built_directory import build_once
from ivcp.demo.clip import draw_clip, sample_performer, write_clip
from ivcp.demo.contact_sheet import draw_contact_sheet
from ivcp.demo.sample_language import (
    caption_row,
    captions_name,
    pair_row,
    pairs_name,
    register_captions,
    register_pairs,
)

PlanT = TypeVar("PlanT")
logger = logging.getLogger(__name__)

GENERATOR_VERSION = 5
"""Goes up whenever the same seed would give other clips."""
_ROWS_VERSION = 2
"""Goes up whenever the same clips would get other rows."""
TRAIN_DATASET, TEST_DATASET = "sample_train", "sample_test"
NUM_TRAIN_PERFORMERS, NUM_TEST_PERFORMERS = 60, 30

_QUESTIONS = (
    "What is the person doing?",
    "Which action does the video show?",
    "Name the action of the person.",
    "What happens in this clip?",
)
_CLIPS_ON_SHEET = 3


@dataclass(frozen=True)
class ClipPlan:
    """One clip that is to be drawn. Everything else about it follows from the seed."""

    split: Literal["train", "test"]
    index: int
    label: str
    performer: int

    @property
    def video(self) -> str:
        """Path of the file inside the data set."""
        return f"videos/{self.split}/{self.label}_{self.index:04d}.mp4"

    @property
    def group(self) -> str:
        """Name of the performer; splits keep the clips of a group together."""
        return f"performer_{self.performer:02d}"

    def rng(self, seed: int) -> np.random.Generator:
        """The clip's own source of randomness: clips may be drawn in any order."""
        return np.random.default_rng([seed, 2 if self.split == "train" else 3, self.index])


@dataclass(frozen=True)
class SampleDataSet:
    """Where the sample data set is and what it holds."""

    directory: Path
    num_train_clips: int
    num_test_clips: int
    label_names: tuple[str, ...]
    reversed_pairs: tuple[tuple[str, str], ...]

    @property
    def contact_sheet(self) -> Path:
        """A picture with a few clips of every class."""
        return self.directory / "contact_sheet.png"


def generate_sample_data(
    output_dir: Path,
    *,
    num_train_clips: int = 1000,
    num_test_clips: int = 300,
    seed: int = 0,
    workers: int = 2,
) -> SampleDataSet:
    """Write the sample data set into a directory, or reuse the one that is there with the same parameters.

    Args:
        output_dir: Gets ``videos/``, ``sample_train.json``, ``sample_test.json``, the same clips as language
            (``sample_captions_*.json``, ``sample_pairs_*.json``), ``dataset_info.json``, ``labels.json``,
            ``contact_sheet.png`` and ``sample.json`` (the parameters).
        num_train_clips: Clips to train and validate on, of 60 performers.
        num_test_clips: Clips to test on, of 30 other performers.
        seed: The same seed gives the same bytes.
        workers: Processes that draw and encode.

    Raises:
        ValueError: Fewer clips than classes in a split, or fewer than one worker.
        FileExistsError: ``output_dir`` holds files that were not generated here.
    """
    _check_counts(num_train_clips, num_test_clips, workers)
    parameters = {
        "generator_version": GENERATOR_VERSION,
        "rows_version": _ROWS_VERSION,
        "num_train_clips": num_train_clips,
        "num_test_clips": num_test_clips,
        "seed": seed,
    }
    train, test = plan_clips("train", num_train_clips), plan_clips("test", num_test_clips)
    build = partial(_write_data_set, train=train, test=test, seed=seed, workers=workers)
    build_once(output_dir, marker="sample.json", parameters=parameters, build=build)
    return SampleDataSet(output_dir, num_train_clips, num_test_clips, LABEL_NAMES, REVERSED_PAIRS)


def plan_clips(split: Literal["train", "test"], num_clips: int) -> list[ClipPlan]:
    """Spread the clips of a split evenly over labels and performers.

    The labels are shifted by one in each round of performers, so that everybody performs every action.
    """
    first, count = (0, NUM_TRAIN_PERFORMERS) if split == "train" else (NUM_TRAIN_PERFORMERS, NUM_TEST_PERFORMERS)
    return [
        ClipPlan(
            split=split,
            index=index,
            label=LABEL_NAMES[(index + index // count) % len(LABEL_NAMES)],
            performer=first + index % count,
        )
        for index in range(num_clips)
    ]


def _check_counts(num_train_clips: int, num_test_clips: int, workers: int) -> None:
    fewest = min(num_train_clips, num_test_clips)
    if fewest < len(LABEL_NAMES):
        raise ValueError(f"every split needs a clip of each of the {len(LABEL_NAMES)} classes, but one gets {fewest}")
    if workers < 1:
        raise ValueError(f"at least one worker is needed, got {workers = }")


def _write_data_set(output_dir: Path, *, train: list[ClipPlan], test: list[ClipPlan], seed: int, workers: int) -> None:
    logger.info("drawing %d clips into %s", len(train) + len(test), output_dir)
    for split in ("train", "test"):
        (output_dir / "videos" / split).mkdir(parents=True)
    _write_clips([*train, *test], output_dir, seed, workers)
    write_json(output_dir / f"{TRAIN_DATASET}.json", [_annotation(plan, seed) for plan in train])
    write_json(output_dir / f"{TEST_DATASET}.json", [_annotation(plan, seed) for plan in test])
    registry = {name: registration(name) for name in (TRAIN_DATASET, TEST_DATASET)}
    for split, plans in (("train", train), ("test", test)):
        registry |= _write_language(output_dir, split, plans, seed)
    write_json(output_dir / "labels.json", {"label_names": LABEL_NAMES, "reversed_pairs": REVERSED_PAIRS})
    _write_contact_sheet(output_dir / "contact_sheet.png", train, seed)
    write_json(output_dir / "dataset_info.json", registry)


def _write_language(output_dir: Path, split: str, plans: list[ClipPlan], seed: int) -> dict[str, Any]:
    """Writes the clips of a split as language; returns the entries of the registry."""
    asked = [(_annotation(plan, seed), _question(plan, seed)) for plan in plans]
    pairs = [pair_row(annotation, question) for annotation, question in asked]
    captions = [caption_row(annotation, question) for annotation, question in asked]
    write_json(output_dir / f"{captions_name(split)}.json", captions)
    write_json(output_dir / f"{pairs_name(split)}.json", [row for row in pairs if row is not None])
    return {captions_name(split): register_captions(split), pairs_name(split): register_pairs(split)}


def _write_clips(plans: list[ClipPlan], output_dir: Path, seed: int, workers: int) -> None:
    write_in_processes(partial(_write_planned_clip, output_dir=output_dir, seed=seed), plans, workers)


def write_in_processes(write: Callable[[PlanT], None], plans: Sequence[PlanT], workers: int) -> None:
    """Calls `write` for each plan, in so many processes."""
    if workers == 1:
        _report_progress(map(write, plans), len(plans))
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        _report_progress(pool.map(write, plans, chunksize=20), len(plans))


def _report_progress(written: Iterable[None], total: int) -> None:
    for count, _ in enumerate(written, start=1):
        if count % 250 == 0 or count == total:
            logger.info("%d of %d clips", count, total)


def _write_planned_clip(plan: ClipPlan, *, output_dir: Path, seed: int) -> None:
    frames, fps = draw_clip(plan.label, sample_performer(seed, plan.performer), plan.rng(seed))
    write_clip(output_dir / plan.video, frames, fps)


def _annotation(plan: ClipPlan, seed: int) -> dict[str, Any]:
    return {
        "conversations": [
            {"from": "human", "value": f"<video>{_question(plan, seed)}<ACTION>"},
            {"from": "gpt", "value": ACTIONS[plan.label].sentence},
        ],
        "videos": [plan.video],
        "action_label": plan.label,
        "group": plan.group,
    }


def _question(plan: ClipPlan, seed: int) -> str:
    return _QUESTIONS[np.random.default_rng([seed, 4, plan.index]).integers(len(_QUESTIONS))]


def registration(dataset: str) -> dict[str, Any]:
    """Its entry in the registry."""
    columns = {"messages": "conversations", "videos": "videos"}
    return {"file_name": f"{dataset}.json", "formatting": "sharegpt", "columns": columns}


def _write_contact_sheet(path: Path, plans: list[ClipPlan], seed: int) -> None:
    clips = {label: [plan for plan in plans if plan.label == label][:_CLIPS_ON_SHEET] for label in LABEL_NAMES}
    draw_contact_sheet(
        {
            label: [draw_clip(label, sample_performer(seed, plan.performer), plan.rng(seed))[0] for plan in of_label]
            for label, of_label in clips.items()
        }
    ).save(path)


def write_json(path: Path, content: object) -> None:
    """As people may read it."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
