"""The tiny base model: a real architecture in small, written as an ordinary ``from_pretrained`` directory."""

import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from ivcp.demo.built_directory import build_once
from ivcp.demo.tiny_architectures import Architecture, build_model, build_processor
from ivcp.demo.tiny_tokenizer import train_tokenizer
from ivcp.demo.warm_up import WarmUpSettings, warm_up_model

logger = logging.getLogger(__name__)

BUILDER_VERSION = 1
"""Goes up whenever the same parameters would give another model."""


def build_tiny_model(
    output_dir: Path,
    *,
    architecture: Architecture = "qwen2_vl",
    warm_up: bool = True,
    seed: int = 0,
    settings: WarmUpSettings | None = None,
    workers: int = 2,
) -> Path:
    """Write a tiny base model into a directory, or reuse the one that is there with the same parameters.

    ``AutoModelForImageTextToText`` and ``AutoProcessor`` read the directory. The tokenizer does not know
    ``<ACTION>``: adding it is the training's job.

    Args:
        output_dir: Gets the weights, the configuration, the processor and ``tiny_model.json`` (parameters).
        architecture: Whose configuration, model and processor classes are used.
        warm_up: Whether the model learns motions first, about two minutes on two cores. Without it the
            weights are random.
        seed: Of the weights and the warm-up.
        settings: How long the warm-up is; the default is what the demo needs.
        workers: Processes that draw the clips of the warm-up.

    Returns:
        ``output_dir``.

    Raises:
        FileExistsError: ``output_dir`` holds files that were not built here.
    """
    chosen = (settings or WarmUpSettings()) if warm_up else None
    parameters: dict[str, str | int | float | bool] = {
        "builder_version": BUILDER_VERSION,
        "architecture": architecture,
        "seed": seed,
        "warm_up": warm_up,
        **(asdict(chosen) if chosen else {}),
    }
    build = partial(_write_model, architecture=architecture, seed=seed, settings=chosen, workers=workers)
    build_once(output_dir, marker="tiny_model.json", parameters=parameters, build=build)
    return output_dir


def _write_model(
    output_dir: Path, *, architecture: Architecture, seed: int, settings: WarmUpSettings | None, workers: int
) -> None:
    tokenizer = train_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(architecture, tokenizer)
        processor = build_processor(architecture, tokenizer)
        if settings is not None:
            warm_up_model(model, processor, settings=settings, seed=seed, workers=workers)
    logger.info("writing %s with %d parameters to %s", architecture, model.num_parameters(), output_dir)
    model.save_pretrained(output_dir)
    processor.save_pretrained(output_dir)
