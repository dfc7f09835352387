"""`sft` and `dpo` as they are done elsewhere against here: tokens per second of a warm epoch, and peak memory.

    python benchmarks/language.py [--clips 32] [--batch 4] [--repeats 5] [--dir DIR]

The plain way decodes every video in every epoch, runs the vision tower over each answer's copy of its frames, and makes
logits of the vocabulary for all tokens of a batch, of the reference model too: what a data set with a collator and a
trainer over transformers' `forward(labels=…)` do. Both ways train LoRA on the language model with gradient
checkpointing, on the same conversations, and take turns: a ratio is the median over the rounds. Speed is measured on
the shape `tiny` of `train_step.py`, memory on `narrow` (see `shapes.py`). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from shapes import SHAPES, build_model, video_settings, write_index, write_videos
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from turns import DEVICE, Turns, epoch_of, peak_bytes, say
from users_way import restore_layers

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.data.prepared.sample import Medium, Sample
from ivcp.models.backbone import language_model_of
from ivcp.models.processor import NO_LABEL, Processor
from ivcp.records import Clip, Message
from ivcp.settings import RunConfig, config_from_settings
from ivcp.stages.language.collators import with_answer
from ivcp.stages.language.log_probs import pair_log_probs
from ivcp.stages.language.losses.preference import PreferenceLoss
from ivcp.stages.registry import stage_of
from ivcp.training.build import build_trainer
from ivcp.video import load_clip

QUESTION = "<video>What is the person doing, and what happens to the chair in the end?"
ANSWERS = ("The person in the video stands up from the chair.", "The person in the video sits down on the chair.")
WAYS = {f"{stage}, {kind}": (stage, kind) for stage in ("sft", "dpo") for kind in ("plain", "here")}


def read_row(config: RunConfig, video: Path, number: int, processor: Processor) -> Sample:
    """One row of a stage with its video decoded, sized and tokenised."""
    stage, frames = stage_of(config), load_clip(str(video), processor=processor)
    answer, other = ANSWERS[number % 2], ANSWERS[1 - number % 2]
    row = Clip(
        clip_id=f"clips:{number}",
        dataset="clips",
        row=number,
        video=str(video),
        messages=(Message(role="user", content=QUESTION), Message(role="assistant", content=answer)),
        rejected=other,
        split="train",
        group=str(number),
        num_frames=frames.total_frames,
    )
    tokens, columns = stage.tokenize_clip(processor, row, [frames])
    return Sample(
        **vars(tokens),
        sample_id=row.clip_id,
        source=row.source,
        media=(Medium(frames.frames, 0.25),),
        columns=stage.values(row) | dict(columns),
    )


@dataclass
class Plain:
    """Collator and loss of the plain way."""

    trainer: Any
    config: RunConfig

    def collate(self, rows: Sequence[tuple[Path, int]]) -> dict[str, Any]:
        """Decodes, and repeats the frames for each answer."""
        processor = self.trainer.sample_processor
        samples = [read_row(self.config, video, number, processor) for video, number in rows]
        if self.config.method.stage == "dpo":
            rejected = [with_answer(each, torch.tensor(each.columns["rejected_ids"]).numpy()) for each in samples]
            samples = [*samples, *rejected]
        return processor.batch(samples, prompts_only=False)

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """With logits of the vocabulary for all tokens."""
        labels = batch.pop("token_labels")
        backbone = self.trainer.model.backbone
        logits = language_model_of(backbone)(**batch, use_cache=False).logits.float()
        if self.config.method.stage == "sft":
            wanted = labels[:, 1:].reshape(-1)
            return functional.cross_entropy(logits[:, :-1].flatten(0, 1), wanted, ignore_index=NO_LABEL)
        with torch.no_grad(), backbone.disable_adapter():
            of_reference = language_model_of(backbone)(**batch, use_cache=False).logits.float()
        policy, reference = (pair_log_probs(_log_probs(each, labels), labels) for each in (logits, of_reference))
        return PreferenceLoss()(policy, reference).mean()


def _log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    wanted = labels[:, 1:]
    found = logits[:, :-1].log_softmax(dim=-1).gather(2, wanted.clamp(min=0).unsqueeze(2)).squeeze(2)
    return torch.where(wanted == NO_LABEL, 0.0, found)


def take_turns(name: str, options: argparse.Namespace) -> None:
    """Prints peak memory of an epoch; then the seconds of another for each line that comes in."""
    (stage_name, kind), shape, directory = WAYS[name], SHAPES[options.shape], Path(options.dir)
    video = video_settings(shape)
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        config = config_from_settings(
            {
                "stage": stage_name,
                "model_name_or_path": str(directory / f"model-{options.shape}"),
                "output_dir": f"{folder}/out",
                "cache_vision_features": kind == "here",
                "bf16": DEVICE == "cuda",
                "report_to": "none",
                **video.model_dump(),
            }
        )
        processor = Processor.from_pretrained(config.model.required_name, video=video)
        videos = write_videos(directory / "videos-7s", options.clips, seconds=7)
        rows = list(zip(videos, range(len(videos)), strict=True))
        samples = [read_row(config, *row, processor) for row in rows]
        index = write_index(Path(folder) / "prepared", samples, video=video, stage=stage_of(config))
        torch.set_num_threads(1 if DEVICE == "cpu" else 8)
        trainer = build_trainer(
            config, index=index, samples={"train": PreparedSamples(index, "train")}, output_dir=Path(folder) / "out"
        )
        data: Any = trainer.train_dataset
        collate, loss = trainer.train_collate.collate, _loss(trainer)
        if kind == "plain":
            restore_layers(language_model_of(trainer.model.backbone), "auto")
            plain = Plain(trainer, config)
            data, collate, loss = rows, plain.collate, plain.loss
        loader: DataLoader[Any] = DataLoader(data, batch_size=options.batch, shuffle=True, collate_fn=collate)
        epoch = epoch_of(trainer, loader, loss)
        epoch()
        say(peak_bytes=peak_bytes(epoch))
        num_tokens = sum(len(sample.input_ids) for sample in samples) * (2 if stage_name == "dpo" else 1)
        for _ in sys.stdin:
            seconds, _ = epoch()
            say(tokens_per_second=num_tokens / seconds)


def _loss(trainer: Any) -> Any:
    return lambda batch: trainer.model(**batch).loss


def main() -> None:
    """Prints both ways of both stages, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--dir", default=str(Path(tempfile.gettempdir()) / "ivcp-benchmark"))
    parser.add_argument("--one", choices=list(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        take_turns(options.one, options)
        return
    dtype = "bfloat16" if DEVICE == "cuda" else "float32"
    for_memory = "narrow" if options.shape == "tiny" else options.shape
    for name in {options.shape, for_memory}:
        build_model(SHAPES[name], Path(options.dir) / f"model-{name}", dtype=dtype)
    write_videos(Path(options.dir) / "videos-7s", options.clips, seconds=7)
    ways = {name: Turns(__file__, name) for name in WAYS}
    rounds = [{name: way.epoch()["tokens_per_second"] for name, way in ways.items()} for _ in range(options.repeats)]
    for way in ways.values():
        way.end()
    peaks = {}
    for name in WAYS:
        way = Turns(__file__, name, "--shape", for_memory, "--clips", "8")
        peaks[name] = way.start["peak_bytes"]
        way.end()
    print(f"{'way':<14}{'tokens/s':>10}{'peak MB':>10}")
    for name in WAYS:
        print(f"{name:<14}{statistics.median(row[name] for row in rounds):>10.0f}{peaks[name] / 1e6:>10.0f}")
    summary: dict[str, Any] = {"device": DEVICE, "shape": options.shape}
    for stage in ("sft", "dpo"):
        here, plain = f"{stage}, here", f"{stage}, plain"
        summary[f"{stage}_ratio"] = statistics.median(row[here] / row[plain] for row in rounds)
        summary[f"{stage}_memory_ratio"] = peaks[here] / peaks[plain]
    summary["memory_ratio"] = max(summary["sft_memory_ratio"], summary["dpo_memory_ratio"])
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
