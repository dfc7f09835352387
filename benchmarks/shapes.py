"""Models with random weights for benchmarks, and real videos to feed them.

`2b` is Qwen2-VL-2B by its published configuration: per layer of the language model 46.8 M weights (28 layers, 1.31 G),
a vocabulary of 151,936 x 1,536 = 233 M, and a vision tower of 32 layers with 19.7 M each (630 M). The tower sees four
patches for each token of the language model. So, per token, the vocabulary's matrix costs 0.18 and the tower
4 x 630 / 1310 = 1.92 of what the language model's layers cost (Qwen2.5-VL-3B: 0.11 and 0.91).

`tiny` has the same shares (0.18 and 1.80). Its size is chosen so that fetching a batch takes the share of the users'
step that it takes there: decoding 16 frames of a 7-second 320x240 video, sizing them to 224x224 pixels and making
pixel tensors take 88 ms of one core (measured where `tiny` was chosen), and the 4.1 to 5.1 TFLOP of LoRA on `2b` take
an A100 41 to 50 ms at 40 % of its peak (without and with gradient checkpointing): 64 to 68 % is fetching, when no
data loader workers are set, as in the users' files. `train_step.py` prints the share that `tiny` gives.

`narrow` is for memory, whose shares three layers do not have: all layers and tokens of `2b`, and all widths, the
vocabulary's too, a sixteenth of its.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ivcp.data.prepared.encoding import encode_sample
from ivcp.data.prepared.sample import Medium, Sample
from ivcp.data.prepared.shards import ShardFile
from ivcp.data.prepared.table import KEY_BYTES, MORE_CONTENTS, write_table
from ivcp.demo.actions import LABEL_NAMES
from ivcp.demo.clip import draw_clip, sample_performer, write_clip
from ivcp.demo.tiny_tokenizer import SPECIAL_TOKENS, train_tokenizer
from ivcp.models.processor import Processor, SampledVideo
from ivcp.records import Labels, Message, PreparedIndex
from ivcp.settings import RunConfig, VideoConfig
from ivcp.stages.protocol import Stage
from ivcp.stages.registry import stage_of
from ivcp.torchvision_compat import register_missing_operators
from ivcp.video import load_clip
from ivcp.video.clips import resize_frames

register_missing_operators()

PROMPT = (Message(role="user", content="<video>What is the person doing? <ACTION>"),)
NUM_FRAMES = 16
CLIPS_PER_SHARD = 256
SOURCE_HEIGHT, SOURCE_WIDTH, SOURCE_FPS = 240, 320, 25

STAGE = stage_of(RunConfig())


@dataclass(frozen=True)
class Shape:
    text_hidden: int
    text_intermediate: int
    text_layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    mrope_section: tuple[int, int, int]
    vision_hidden: int
    vision_layers: int
    vision_heads: int
    patch: int

    tokens_per_side: int
    """Of a frame; a token is 2 x 2 patches."""

    @property
    def frame_side(self) -> int:
        """Pixels."""
        return 2 * self.tokens_per_side * self.patch

    @property
    def tokens_per_clip(self) -> int:
        """Vision tokens; the tower merges two frames and 2 x 2 patches into one."""
        return NUM_FRAMES // 2 * self.tokens_per_side**2

    @property
    def text_weights(self) -> int:
        head_dim = self.text_hidden // self.heads
        attention = 2 * self.text_hidden**2 + 2 * self.text_hidden * self.kv_heads * head_dim
        return self.text_layers * (attention + 3 * self.text_hidden * self.text_intermediate)

    @property
    def head_weights(self) -> int:
        return self.vocabulary * self.text_hidden

    @property
    def vision_weights(self) -> int:
        return self.vision_layers * 12 * self.vision_hidden**2


SHAPES = {
    "tiny": Shape(96, 384, 3, 4, 2, 778, (3, 4, 5), 72, 3, 3, 8, tokens_per_side=4),
    "narrow": Shape(96, 560, 28, 12, 2, 9496, (2, 1, 1), 80, 32, 4, 14, tokens_per_side=8),
    "2b": Shape(1536, 8960, 28, 12, 2, 151936, (16, 24, 24), 1280, 32, 16, 14, tokens_per_side=8),
}


def build_model(shape: Shape, directory: Path, *, dtype: str) -> Path:
    """Writes a Qwen2-VL of this shape with random weights; a directory that is there is taken as it is."""
    import torch
    import transformers as hf

    if (directory / "config.json").is_file():
        return directory
    tokenizer = train_tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    common: dict[str, Any] = {"initializer_range": 0.02}
    config = hf.Qwen2VLConfig(
        text_config={
            "vocab_size": shape.vocabulary,
            "hidden_size": shape.text_hidden,
            "intermediate_size": shape.text_intermediate,
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": list(shape.mrope_section),
            },
            "tie_word_embeddings": True,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
            **common,
        },
        vision_config={
            "embed_dim": shape.vision_hidden,
            "hidden_size": shape.text_hidden,
            "depth": shape.vision_layers,
            "num_heads": shape.vision_heads,
            "patch_size": shape.patch,
            "mlp_ratio": 4,
            **common,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    grid: dict[str, Any] = {
        "patch_size": shape.patch,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": shape.frame_side**2, "longest_edge": shape.frame_side**2},
    }
    torch.manual_seed(0)
    model = hf.AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))
    videos = hf.Qwen2VLVideoProcessor(**grid, cap_pixels_per_frame=False)
    processor = hf.Qwen2VLProcessor(
        hf.Qwen2VLImageProcessor(**grid), tokenizer, videos, chat_template=tokenizer.chat_template
    )
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def write_videos(folder: Path, num_clips: int, *, seconds: int) -> list[Path]:
    """Clips of the sample data's generator at 320x240 and 25 frames a second."""
    num_frames = seconds * SOURCE_FPS
    folder.mkdir(parents=True, exist_ok=True)
    videos = [folder / f"{number:04d}.mp4" for number in range(num_clips)]
    for number, video in enumerate(videos):
        if video.is_file():
            continue
        rng = np.random.default_rng([7, number])
        frames, _ = draw_clip(LABEL_NAMES[number % len(LABEL_NAMES)], sample_performer(0, number % 60), rng)
        frames = resize_frames(frames, (SOURCE_HEIGHT, SOURCE_WIDTH))
        write_clip(video, frames[np.arange(num_frames) * len(frames) // num_frames], SOURCE_FPS)
    return videos


def video_settings(shape: Shape) -> VideoConfig:
    side = shape.frame_side**2
    return VideoConfig(video_num_frames=NUM_FRAMES, video_max_pixels=side, video_min_pixels=side // 2)


def read_clip(video: Path, number: int, processor: Processor) -> Sample:
    """One video decoded, sized and tokenised."""
    clip = load_clip(str(video), processor=processor)
    return sample_of(clip, processor, number, name=str(video))


def sample_of(video: SampledVideo, processor: Processor, number: int, *, name: str) -> Sample:
    """A decoded clip, sized and tokenised."""
    return Sample(
        **vars(STAGE.tokenize(processor, PROMPT, [video])),
        sample_id=f"clips:{number}",
        source=name,
        media=(Medium(video.frames, 0.25),),
        columns={"label": number % len(LABEL_NAMES)},
    )


def write_index(
    folder: Path, clips: list[Sample], *, video: VideoConfig, repeats: int = 1, stage: Stage = STAGE
) -> PreparedIndex:
    """Shards of the clips as training split, each `repeats` times, and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    encoded = [encode_sample(clip, stage.columns) for clip in clips]
    num_clips, lengths = repeats * len(clips), [len(clip.input_ids) for clip in clips]
    shards, offsets = [], []
    for number, start in enumerate(range(0, num_clips, CLIPS_PER_SHARD)):
        with ShardFile(folder / f"train-{number:05d}.arrow", "train") as file:
            for place in range(start, min(start + CLIPS_PER_SHARD, num_clips)):
                file.add(encoded[place % len(encoded)])
        shards.append(file.info)
        offsets += file.offsets
    numbers = [column.name for column in stage.columns if column.is_number]
    values = {
        "sample_id": [clip.sample_id for clip in clips] * repeats,
        **{name: [clip.columns[name] for clip in clips] * repeats for name in numbers},
        "num_tokens": lengths * repeats,
        "num_prompt_tokens": [clip.num_prompt_tokens for clip in clips] * repeats,
        "offset": offsets,
        "key": [bytes(KEY_BYTES)] * num_clips,
        MORE_CONTENTS: [[]] * num_clips,
        "content": list(range(num_clips)),
        "group": list(range(num_clips)),
    }
    table = write_table(folder / "clips.arrow", shards, values, columns=stage.columns)
    return PreparedIndex(
        fingerprint=str(folder),
        root_uri=str(folder),
        shards=tuple(shards),
        table=table,
        labels=Labels(label_names=LABEL_NAMES),
        video=video,
        stage=stage.config.method.stage,
        special_tokens=stage.special_tokens,
        prompts=(PROMPT,),
        num_clips={"train": num_clips},
        label_counts={"train": tuple(num_clips // len(LABEL_NAMES) for _ in LABEL_NAMES)},
        max_tokens=max(lengths),
        mean_tokens=sum(lengths) / len(lengths),
        data_fingerprint="benchmark",
    )
