"""The base model that speaks, written as an ordinary ``from_pretrained`` directory."""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from ivcp.demo.built_directory import build_once
from ivcp.demo.language.architecture import build_model, build_processor
from ivcp.demo.language.examine import examine, held_out_clips
from ivcp.demo.language.smollm2 import PACKAGE, find_weights, load_language_model, package_version
from ivcp.demo.language.warm_up import LanguageWarmUpSettings, warm_up_language

logger = logging.getLogger(__name__)

BUILDER_VERSION = 1
"""Goes up whenever the same parameters would give another model."""
_MARKER = "tiny_model.json"
_NUM_ASKED = 16


def build_language_model(
    output_dir: Path, *, warm_up: bool = True, seed: int = 0, settings: LanguageWarmUpSettings | None = None
) -> Path:
    """Write SmolLM2 behind a small vision tower into a directory, or reuse the one that is there.

    ``AutoModelForImageTextToText`` and ``AutoProcessor`` read the directory. About texts it says what SmolLM2 says.

    Args:
        output_dir: Gets the weights (540 MB), the configuration, the processor and ``tiny_model.json`` (parameters).
        warm_up: Whether vision tower and projector learn to show clips to the language model first, some minutes.
            Without it their weights are random.
        seed: Of these weights and the warm-up.
        settings: How long the warm-up is.

    Returns:
        ``output_dir``.

    Raises:
        LanguageModelMissingError: the packages with SmolLM2 are not installed.
        FileExistsError: ``output_dir`` holds files that were not built here.
    """
    find_weights()
    chosen = (settings or LanguageWarmUpSettings()) if warm_up else None
    parameters: dict[str, str | int | float | bool] = {
        "builder_version": BUILDER_VERSION,
        "language": "smollm2",
        PACKAGE: package_version(),
        "seed": seed,
        "warm_up": warm_up,
        **(asdict(chosen) if chosen else {}),
    }
    build_once(output_dir, marker=_MARKER, parameters=parameters, build=partial(_write, seed=seed, settings=chosen))
    return output_dir


def _write(output_dir: Path, *, seed: int, settings: LanguageWarmUpSettings | None) -> None:
    logger.info("reading SmolLM2 out of %s", find_weights())
    language = load_language_model()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        processor = build_processor(language)
        model = build_model(language)
        if settings is not None:
            warm_up_language(model, processor, settings=settings, seed=seed)
            for asked in examine(model, processor, held_out_clips(_NUM_ASKED, seed=seed)):
                logger.info("of %d clips it never saw: %s %.2f", _NUM_ASKED, asked.question, asked.exact_match)
    logger.info("writing a model with %d parameters to %s", model.num_parameters(), output_dir)
    model.save_pretrained(output_dir)
    processor.save_pretrained(output_dir)
