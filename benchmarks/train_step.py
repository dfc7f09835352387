"""Training as users know it against training here: clips per second of a warm epoch, and peak memory.

    python benchmarks/train_step.py [--clips 32] [--batch 4] [--repeats 3] [--shape tiny|2b] [--dir DIR]

The users' way is written out in `Users`: the whole model with `output_hidden_states=True` and logits of the vocabulary,
the answer kept behind the token, every video decoded by the collator in every epoch. The rows between it and this
project's way add one measure after the other. Each measurement is a process of its own, the ways alternate, and
medians are reported; clips per second of CPU time stand beside those of the clock, since other work on the machine
blurs them less. `tiny` has the compute shares of Qwen2-VL-2B (see `shapes.py`). On a GPU, weights are bfloat16 and
`--peak-tflops` adds the share of the device's peak. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from shapes import SHAPES, build_model, read_clip, video_settings, write_index, write_videos
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.activations import QuickGELUActivation

from components.action_model import language_model_of
from components.clip_processor import ClipProcessor, PreparedClip
from components.config_files import config_from_settings
from components.prepared_clips import PreparedClips
from components.training.train import build_trainer
from components.vision_layers import PatchConv3d, QuickGELU

ANSWER = "The person in the video stands up from the chair."
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Way:
    """One way of training: what is still done as users do it."""

    full_model: bool = False
    keeps_answer: bool = False
    decodes: bool = False
    faster_tower: bool = True
    cached: bool = False
    trains_tower: bool = False


USERS = {"full_model": True, "keeps_answer": True, "decodes": True, "faster_tower": False}
WAYS = {
    "users' way": Way(**USERS),
    "+ no lm_head, no list of hidden states": Way(keeps_answer=True, decodes=True, faster_tower=False),
    "+ nothing behind the token": Way(decodes=True, faster_tower=False),
    "+ prepared clips": Way(faster_tower=False),
    "+ faster vision tower": Way(),
    "+ cached vision features": Way(cached=True),
    "users' way, tower trains": Way(**USERS, trains_tower=True),
    "+ prepared clips, cut, no lm_head": Way(faster_tower=False, trains_tower=True),
    "+ faster vision tower, tower trains": Way(trains_tower=True),
}
FROZEN = ("users' way", "+ cached vision features")
FETCH = ("+ nothing behind the token", "+ prepared clips")
TRAINING = ("users' way, tower trains", "+ faster vision tower, tower trains")


class Users:
    """The collator and the step of the users' way, or of one between it and this project's."""

    def __init__(self, way: Way, trainer: Any) -> None:
        self.way, self.classifier, self.processor = way, trainer.model, trainer.clip_processor
        tokenizer = self.processor.processor.tokenizer
        self.answer = torch.tensor(tokenizer.encode(ANSWER, add_special_tokens=False))

    def collate(self, clips: Sequence[Any]) -> dict[str, Any]:
        if self.way.decodes:
            clips = [read_clip(path, number, self.processor) for path, number in clips]
        batch = self.processor.collate(clips)
        if self.way.keeps_answer:
            answers = self.answer.expand(len(clips), -1)
            batch["input_ids"] = torch.cat([batch["input_ids"], answers], dim=1)
            batch["attention_mask"] = torch.cat([batch["attention_mask"], torch.ones_like(answers)], dim=1)
            batch["mm_token_type_ids"] = torch.cat([batch["mm_token_type_ids"], torch.zeros_like(answers)], dim=1)
        return batch

    def loss(self, batch: dict[str, Any]) -> Tensor:
        if not self.way.full_model:
            return self.classifier(**batch).loss
        labels = batch.pop("labels")
        output = language_model_of(self.classifier.backbone)(**batch, output_hidden_states=True, use_cache=False)
        positions = (batch["input_ids"] == self.classifier.action_token_id).int().argmax(dim=1)
        states = output.hidden_states[-1][torch.arange(len(positions), device=positions.device), positions]
        loss = nn.functional.cross_entropy(self.classifier.decoder(states).float(), labels)
        return loss + 0 * output.logits[:, -1, 0].float().mean()  # the logits live until the backward pass


def measure(way: Way, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of a warm epoch and peak memory above the loaded model, of this process."""
    shape = SHAPES[options.shape]
    directory = Path(options.dir)
    model_dir, video = directory / f"model-{options.shape}", video_settings(shape)
    processor = ClipProcessor.from_pretrained(model_dir, video=video, action_token="<ACTION>")
    videos = write_videos(directory / f"videos-{options.seconds}s", options.clips, seconds=options.seconds)
    clips: list[PreparedClip] = [read_clip(path, number, processor) for number, path in enumerate(videos)]
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
                "disable_gradient_checkpointing": True,
                "report_to": "none",
                **video.model_dump(),
            }
        )
        torch.set_num_threads(1 if DEVICE == "cpu" else 8)
        trainer = build_trainer(
            config, index=index, clips={"train": PreparedClips(index, "train")}, output_dir=Path(name) / "out"
        )
        if not way.faster_tower:
            _restore_tower(language_model_of(trainer.model.backbone).get_encoder(modality="video"), options.attention)
        users = Users(way, trainer)
        data: Any = list(zip(videos, range(len(videos)), strict=True)) if way.decodes else trainer.train_dataset
        loader: DataLoader[Any] = DataLoader(data, batch_size=options.batch, shuffle=True, collate_fn=users.collate)
        return _epochs(trainer, loader, users.loss, num_clips=len(videos))


def _restore_tower(tower: nn.Module, attention: str) -> None:
    """Gives the vision tower the layers and the attention that transformers gives it."""
    if attention == "auto":
        tower.config._attn_implementation = "sdpa"
    for parent in list(tower.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, PatchConv3d):
                layer.__class__ = nn.Conv3d
            elif isinstance(layer, QuickGELU):
                setattr(parent, name, QuickGELUActivation())


def _epochs(
    trainer: Any, loader: DataLoader[Any], loss_of: Callable[[dict[str, Any]], Tensor], *, num_clips: int
) -> dict[str, float]:
    model = trainer.model.to(DEVICE).train()
    optimizer = trainer.create_optimizer()

    def epoch() -> tuple[float, float]:
        started, cpu_started = time.perf_counter(), time.process_time()
        for batch in loader:
            with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
                loss = loss_of(_to_device(batch))
            loss.backward()
            nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
            optimizer.step()
            optimizer.zero_grad()
            del loss, batch
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started, time.process_time() - cpu_started

    reset = _reset_peak()
    first, _ = epoch()
    peak = _peak() - reset
    seconds, cpu_seconds = epoch()
    return {
        "clips_per_second": num_clips / seconds,
        "clips_per_cpu_second": num_clips / cpu_seconds,
        "first_epoch_seconds": first,
        "peak_bytes": float(max(peak, 1)),
    }


def _to_device(batch: Any) -> Any:
    return {k: _to_device(v) for k, v in batch.items()} if isinstance(batch, dict) else batch.to(DEVICE)


def _reset_peak() -> int:
    """Starts a new measurement of peak memory; what is held now, in bytes."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return torch.cuda.max_memory_allocated() if DEVICE == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


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
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--attention", choices=["auto", "sdpa", "fa2"], default="auto")
    parser.add_argument("--peak-tflops", type=float, help="of the device, to print the share of it that is used")
    parser.add_argument("--dir", default=str(Path(tempfile.gettempdir()) / "ivcp-benchmark"))
    parser.add_argument("--only", nargs="*", choices=list(WAYS), help="measure these ways alone")
    parser.add_argument("--one", choices=list(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(WAYS[options.one], options)))
        return
    dtype = "bfloat16" if DEVICE == "cuda" else "float32"
    build_model(SHAPES[options.shape], Path(options.dir) / f"model-{options.shape}", dtype=dtype)
    write_videos(Path(options.dir) / f"videos-{options.seconds}s", options.clips, seconds=options.seconds)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in options.only or WAYS}
    for _ in range(options.repeats):
        for name in results:
            command = [sys.executable, __file__, *sys.argv[1:], "--one", name]
            finished = subprocess.run(command, capture_output=True, text=True, check=False)
            if finished.returncode:
                sys.exit(finished.stderr)
            results[name].append(json.loads(finished.stdout.splitlines()[-1]))
    report(results, options)


def report(results: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    """The table of all ways, and the JSON line."""
    median = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in results.items()
    }
    print(f"{'way':<44}{'clips/s':>9}{'x':>7}{'clips/CPU s':>13}{'peak MB':>10}")
    for name, row in median.items():
        base = median.get(TRAINING[0] if WAYS[name].trains_tower else FROZEN[0], row)
        ratio = row["clips_per_second"] / base["clips_per_second"]
        numbers = f"{row['clips_per_second']:>9.2f}{ratio:>7.2f}{row['clips_per_cpu_second']:>13.2f}"
        print(f"{name:<44}{numbers}{row['peak_bytes'] / 1e6:>10.0f}")
    summary: dict[str, Any] = {"device": DEVICE, "shape": options.shape, "ways": median}
    for key, (users, ours) in {"frozen": FROZEN, "training": TRAINING}.items():
        if users in median and ours in median:
            rates = [median[name]["clips_per_second"] for name in (users, ours)]
            summary[f"warm_epoch_ratio_{key}"] = rates[1] / rates[0]
            rates = [median[name]["clips_per_cpu_second"] for name in (users, ours)]
            summary[f"warm_epoch_ratio_{key}_cpu_time"] = rates[1] / rates[0]
    if all(name in median for name in FETCH):
        rates = [median[name]["clips_per_second"] for name in FETCH]
        summary["users_fetch_share"] = (1 / rates[0] - 1 / rates[1]) / (1 / median[FROZEN[0]]["clips_per_second"])
    if all(name in median for name in FROZEN):
        summary["peak_memory_ratio"] = median[FROZEN[1]]["peak_bytes"] / median[FROZEN[0]]["peak_bytes"]
        if options.peak_tflops:
            rate = median[FROZEN[1]]["clips_per_second"] * training_flops(options, cached=True)
            summary["mfu_frozen"] = rate / (options.peak_tflops * 1e12)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
