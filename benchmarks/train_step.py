"""Training as users know it against training here: clips per second of a warm epoch, and peak memory.

    python benchmarks/train_step.py [--clips 32] [--batch 4] [--repeats 7] [--shape tiny|2b] [--dir DIR]

The users' way is written out in `users_way.py`: the whole model with `output_hidden_states=True` and logits of the
vocabulary, the answer kept behind the token, every video decoded by the collator in every epoch. The rows between it
and this project's way add one measure after the other. Each way is a process of its own; they take turns, one warm
epoch each and a round for each repeat. A ratio is the median over the rounds, since a machine's speed drifts between
them; clips per second of CPU time stand beside those of the clock, because other work on the machine blurs them less.
Gradient checkpointing is on, as in the users' files, except in the ways that keep activations (`--keep-activations`:
in none). The first epoch of a compiled way compiles and does not count. `tiny` has the compute shares of Qwen2-VL-2B,
and `narrow` its shares of memory (see `shapes.py`). On a GPU, weights are bfloat16 and `--peak-tflops` adds the share
of the device's peak; all ways lie in its memory at once, `--only` chooses some. The last line is one JSON object."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from shapes import SHAPES, build_model, read_clip, video_settings, write_index, write_videos
from torch.utils.data import DataLoader
from turns import DEVICE, Turns, epoch_of, peak_bytes, say
from users_way import WAYS, Users, Way, restore_layers

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.data.prepared.sample import Sample
from ivcp.models.backbone import language_model_of
from ivcp.models.processor import Processor
from ivcp.settings import config_from_settings
from ivcp.training.build import build_trainer

FETCH = ("+ nothing behind the token", "+ prepared clips")


OURS = {
    "frozen": "+ compiled",
    "frozen_not_compiled": "+ cached vision features",
    "frozen_kept": "+ activations kept",
    "training": "+ compiled, tower trains",
    "training_not_compiled": "+ faster layers, tower trains",
    "training_kept": "+ activations kept, tower trains",
}
"""Compared with the users' ways. Only those named `kept` spend memory on not computing anything twice."""


FROZEN_USERS, TRAINING_USERS = "users' way", "users' way, tower trains"


MEMORY = {
    "peak_memory_ratio": OURS["frozen"],
    "peak_memory_ratio_not_compiled": OURS["frozen_not_compiled"],
    "peak_memory_ratio_kept": OURS["frozen_kept"],
}


def take_turns(way: Way, options: argparse.Namespace) -> None:
    """Prints the seconds of the first epoch and peak memory of another; then those of another for each line
    that comes in.
    """
    shape = SHAPES[options.shape]
    directory = Path(options.dir)
    model_dir, video = directory / f"model-{options.shape}", video_settings(shape)
    processor = Processor.from_pretrained(model_dir, video=video, special_tokens=("<ACTION>",))
    videos = write_videos(directory / f"videos-{options.seconds}s", options.clips, seconds=options.seconds)
    clips: list[Sample] = [read_clip(path, number, processor) for number, path in enumerate(videos)]
    with tempfile.TemporaryDirectory(dir=directory) as name:
        index = write_index(Path(name) / "prepared", clips, video=video)
        config = config_from_settings(
            {
                "model_name_or_path": str(model_dir),
                "output_dir": f"{name}/out",
                "finetuning_type": "full" if way.trains_tower else "lora",
                "freeze_vision_tower": not way.trains_tower,
                "cache_vision_features": way.cached,
                "bf16": DEVICE == "cuda",
                "flash_attn": options.attention,
                "disable_gradient_checkpointing": not way.recomputes or options.keep_activations,
                "torch_compile": way.compiled,
                "report_to": "none",
                **video.model_dump(),
            }
        )
        torch.set_num_threads(1 if DEVICE == "cpu" else 8)
        trainer = build_trainer(
            config, index=index, samples={"train": PreparedSamples(index, "train")}, output_dir=Path(name) / "out"
        )
        if not way.faster_layers:
            restore_layers(language_model_of(trainer.model.backbone), options.attention)
        users = Users(way, trainer)
        data: Any = list(zip(videos, range(len(videos)), strict=True)) if way.decodes else trainer.train_dataset
        loader: DataLoader[Any] = DataLoader(data, batch_size=options.batch, shuffle=True, collate_fn=users.collate)
        epoch = epoch_of(trainer, loader, users.loss)
        first, _ = epoch()
        say(first_epoch_seconds=first, peak_bytes=peak_bytes(epoch))
        for _ in sys.stdin:
            seconds, cpu_seconds = epoch()
            say(clips_per_second=len(videos) / seconds, clips_per_cpu_second=len(videos) / cpu_seconds)


def training_flops(options: argparse.Namespace, *, cached: bool) -> float:
    """Operations of one clip with LoRA: forward and gradients of states in the text layers, forward in the tower."""
    shape, prompt = SHAPES[options.shape], 40
    text = 2 * shape.text_weights * (shape.tokens_per_clip + prompt)
    return 2.0 * (text + (0 if cached else shape.vision_weights * 4 * shape.tokens_per_clip))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=7, help="length of the videos: 7 as in UCF101, 3 as in HMDB51")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--attention", choices=["auto", "sdpa", "fa2"], default="auto")
    parser.add_argument("--keep-activations", action="store_true", help="no gradient checkpointing, in no way")
    parser.add_argument("--peak-tflops", type=float, help="of the device, to print the share of it that is used")
    parser.add_argument("--dir", default=str(Path(tempfile.gettempdir()) / "ivcp-benchmark"))
    parser.add_argument("--only", nargs="*", choices=list(WAYS), help="measure these ways alone")
    parser.add_argument("--one", choices=list(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        take_turns(WAYS[options.one], options)
        return
    dtype = "bfloat16" if DEVICE == "cuda" else "float32"
    build_model(SHAPES[options.shape], Path(options.dir) / f"model-{options.shape}", dtype=dtype)
    write_videos(Path(options.dir) / f"videos-{options.seconds}s", options.clips, seconds=options.seconds)
    ways = {name: Turns(__file__, name) for name in options.only or WAYS}
    rounds = [{name: way.epoch() for name, way in ways.items()} for _ in range(options.repeats)]
    for way in ways.values():
        way.end()
    starts = {name: way.start for name, way in ways.items()}
    report(starts, rounds, measure_memory(starts, options), options)


def measure_memory(starts: dict[str, dict[str, float]], options: argparse.Namespace) -> dict[str, float]:
    """Peak bytes of the ways with a frozen tower, on a model whose shares of memory are those of `2b`."""
    names = (FROZEN_USERS, *MEMORY.values())
    if not all(name in starts for name in names):
        return {}
    if options.shape != "tiny":
        return {name: starts[name]["peak_bytes"] for name in names}
    build_model(
        SHAPES["narrow"], Path(options.dir) / "model-narrow", dtype="bfloat16" if DEVICE == "cuda" else "float32"
    )
    peaks = {}
    for name in names:
        way = Turns(__file__, name, "--shape", "narrow", "--clips", "8")
        peaks[name] = way.start["peak_bytes"]
        way.end()
    return peaks


def report(
    starts: dict[str, dict[str, float]],
    rounds: list[dict[str, dict[str, float]]],
    memory: dict[str, float],
    options: argparse.Namespace,
) -> None:
    """The table of all ways, and the JSON line."""

    def ratio(name: str, base: str, key: str = "clips_per_second") -> float:
        return statistics.median(row[name][key] / row[base][key] for row in rounds)

    rates = ("clips_per_second", "clips_per_cpu_second")
    ways = {
        name: start | {key: statistics.median(row[name][key] for row in rounds) for key in rates}
        for name, start in starts.items()
    }
    print(f"{'way':<44}{'clips/s':>9}{'x':>7}{'clips/CPU s':>13}{'peak MB':>10}")
    for name, row in ways.items():
        base = _users_way(name)
        numbers = f"{row['clips_per_second']:>9.2f}{ratio(name, base if base in ways else name):>7.2f}"
        print(f"{name:<44}{numbers}{row['clips_per_cpu_second']:>13.2f}{row['peak_bytes'] / 1e6:>10.0f}")
    summary: dict[str, Any] = {"device": DEVICE, "shape": options.shape, "ways": ways}
    for key, ours in OURS.items():
        users = _users_way(ours)
        if users in ways and ours in ways:
            summary[f"warm_epoch_ratio_{key}"] = ratio(ours, users)
            summary[f"warm_epoch_ratio_{key}_range"] = sorted(
                row[ours]["clips_per_second"] / row[users]["clips_per_second"] for row in rounds
            )[:: max(1, len(rounds) - 1)]
            summary[f"warm_epoch_ratio_{key}_cpu_time"] = ratio(ours, users, "clips_per_cpu_second")
    if all(name in ways for name in (*FETCH, FROZEN_USERS)):
        with_fetch, without, all_of_it = (1 / ways[name]["clips_per_second"] for name in (*FETCH, FROZEN_USERS))
        summary["users_fetch_share"] = (with_fetch - without) / all_of_it
    if memory:
        summary |= {key: memory[name] / memory[FROZEN_USERS] for key, name in MEMORY.items()}
        print("peak MB, shares of memory as in 2b:", ", ".join(f"{n}: {b / 1e6:.0f}" for n, b in memory.items()))
        if options.peak_tflops:
            rate = ways[OURS["frozen"]]["clips_per_second"] * training_flops(options, cached=True)
            summary["mfu_frozen"] = rate / (options.peak_tflops * 1e12)
    print(json.dumps(summary))


def _users_way(name: str) -> str:
    return TRAINING_USERS if WAYS[name].trains_tower else FROZEN_USERS


if __name__ == "__main__":
    main()
