"""Settings of the data: which annotations are read, how they are split, how frames are sampled."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ivcp.settings.places import Place
from ivcp.settings.sections.section import Section, as_names

Strictness = Literal["error", "warn", "ignore"]


class DataConfig(Section):
    """Which annotations are read, and how they are split."""

    dataset: tuple[str, ...] = ()
    """Names in `dataset_info.json` to train on, comma-separated."""
    eval_dataset: tuple[str, ...] = ()
    """Names of the validation data sets. Exclusive with `val_size`."""
    test_dataset: tuple[str, ...] = ()
    """Names of the data sets that only the evaluation step sees. Exclusive with `test_size`."""
    dataset_dir: Place = "data"
    """Folder or s3:// prefix with `dataset_info.json`."""
    media_dir: Place | None = None
    """Folder or s3:// prefix that relative video paths start from; null is `dataset_dir`."""
    cutoff_len: int = Field(2048, ge=1)
    """Longest sample in tokens. A longer one is an error that names the row; nothing is ever cut."""
    max_samples: int | None = Field(None, ge=1)
    """Use at most this many rows of each data set, chosen by the seed: each class keeps its share, at least one row."""
    val_size: float = Field(0.0, ge=0)
    """Validation share (below 1) or number of clips (1 and above), cut from `dataset` by group."""
    test_size: float = Field(0.0, ge=0)
    """Test share or number of clips, cut from `dataset` by group."""
    splits_file: str | None = None
    """File or s3:// object that keeps which group was given to which split, for later runs. Null is
    `group_splits.jsonl` in `dataset_dir`."""
    resplit: bool = False
    """Give all groups a split anew, whatever an earlier run gave them. Models of earlier runs have then seen clips of
    the new test split, which their evaluation leaves out."""
    preprocessing_num_workers: int | None = Field(None, ge=1)
    """Processes that decode videos; null is one per core."""
    preprocessing_parts: int = Field(1, ge=1)
    """Tasks that prepare clips side by side on a cluster, each whole shards; every one is a pod. For more than one the
    pipeline is compiled with a loop (`ivcp submit` does so); elsewhere one task prepares all."""
    prepared_frames: Literal["raw", "jpeg"] = "raw"
    """How frames are kept in shards. JPEG takes a tenth of the space, a tenth of the reading speed, and changes
    pixels: what is evaluated is then not quite what the predictor sees."""
    prepared_jpeg_quality: int = Field(95, ge=1, le=100)
    """Of `prepared_frames: jpeg`."""
    prepared_verify_checksums: bool = False
    """Compare the checksum of every shard before a step uses it, which reads all of them; sizes are always compared."""
    max_invalid_fraction: float = Field(0.05, ge=0, le=1)
    """Share of rows whose video may be unusable; more fails the validation step."""
    video_timeout_seconds: float = Field(60.0, gt=0)
    """A video whose decoding takes longer is quarantined and its worker process replaced; for each clip of it."""
    video_memory_gigabytes: float = Field(4.0, gt=0)
    """A video that takes more memory in its worker process is quarantined."""
    on_leaks: Strictness = "error"
    """What validation does where a group, or the same video content, stands in more than one split: accuracy on such a
    test split says too much. `error` refuses the data, `warn` logs it, `ignore` only reports it."""
    on_near_duplicates: Strictness = "warn"
    """The same for videos of several splits that look alike, though their bytes differ."""
    on_duplicates: Strictness = "warn"
    """The same for clips with the same content and span."""
    on_label_conflicts: Strictness = "warn"
    """The same for contradictions: clips with the same content or look, and the same span, but several classes; answers
    with a tag that are good in one row and bad in another."""
    near_duplicate_frames: int = Field(4, ge=0, le=16)
    """Frames of each video that are compared with those of all others; 0 compares none."""
    near_duplicate_distance: float = Field(4.0, ge=0, le=16)
    """Videos look alike whose frames differ in at most this many of 64 bits, on average."""
    report_thumbnails: int = Field(2, ge=0, le=8)
    """Pictures of each class in the validation report, as far as 400 in all suffice, and of contradictions; eight times
    as many in all where there are no classes; 0: none."""
    report_examples: int = Field(100, ge=1)
    """Most duplicates, leaks and long rows that the validation report names; all of them are counted."""

    @model_validator(mode="after")
    def _quality_is_used(self) -> Self:
        if self.prepared_frames == "raw" and self.prepared_jpeg_quality != 95:
            raise ValueError(
                f"prepared_jpeg_quality = {self.prepared_jpeg_quality} has no meaning for prepared_frames: raw; "
                "remove it or choose prepared_frames: jpeg"
            )
        return self

    @property
    def jpeg_quality(self) -> int | None:
        """Of prepared frames; null keeps their pixels."""
        return self.prepared_jpeg_quality if self.prepared_frames == "jpeg" else None

    @field_validator("dataset", "eval_dataset", "test_dataset", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return as_names(value)

    @model_validator(mode="after")
    def _one_source_per_split(self) -> Self:
        for split, names in (("val", self.eval_dataset), ("test", self.test_dataset)):
            size = self.val_size if split == "val" else self.test_size
            if names and size:
                key = "eval_dataset" if split == "val" else "test_dataset"
                raise ValueError(f"{key} = {','.join(names)} and {split}_size = {size} exclude each other: keep one")
        return self


class VideoConfig(Section):
    """How frames are sampled and sized, images sized and sounds heard: stored with the model, the same for training,
    evaluation and serving."""

    video_num_frames: int | None = Field(None, ge=1)
    """Sample exactly this many frames, evenly spread. Null samples by `video_fps`."""
    video_fps: float = Field(2.0, gt=0)
    """Frames per second to sample when `video_num_frames` is null."""
    video_maxlen: int = Field(128, ge=1)
    """Most frames per clip when sampling by `video_fps`."""
    video_max_pixels: int = Field(256 * 256, ge=1)
    """Most pixels per frame; larger frames are scaled down, keeping their aspect."""
    video_min_pixels: int = Field(16 * 16, ge=1)
    """Fewest pixels per frame; smaller frames are scaled up, keeping their aspect."""
    image_max_pixels: int = Field(768 * 768, ge=1)
    """Most pixels per image; larger images are scaled down, keeping their aspect, before the model's processor cuts
    them up in its own way."""
    image_min_pixels: int = Field(32 * 32, ge=1)
    """Fewest pixels per image; smaller images are scaled up, keeping their aspect."""
    use_audio_in_video: bool = False
    """Whether the sound track of a video is heard with its frames, by a model that puts both together in time."""
    audio_sampling_rate: int = Field(16_000, ge=4_000, le=192_000)
    """Samples per second of sounds, which the model has to expect; files of other rates are resampled."""
    video_frame_candidates: int = Field(1, ge=1)
    """Frames of training clips stored around each sampled moment, for `augment_temporal_jitter`."""
    video_backend: Literal["auto", "pyav", "decord", "torchcodec"] = "auto"
    """What decodes videos, where it gives the right frames; PyAV elsewhere. `auto` is what is fastest: PyAV."""

    @model_validator(mode="after")
    def _ordered_pixels(self) -> Self:
        if self.video_min_pixels > self.video_max_pixels:
            raise ValueError(
                f"video_min_pixels = {self.video_min_pixels} is above video_max_pixels = {self.video_max_pixels}"
            )
        if self.image_min_pixels > self.image_max_pixels:
            raise ValueError(
                f"image_min_pixels = {self.image_min_pixels} is above image_max_pixels = {self.image_max_pixels}"
            )
        return self
