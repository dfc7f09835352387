"""How a transformers processor is given the media of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ivcp.models.families import check_sees_videos, grid_seconds, placeholder_token, processor_settings
from ivcp.models.images import check_reads_images, image_settings
from ivcp.models.sampled import SampledVideo, channels_first
from ivcp.models.sounds import check_heard_whole, check_hears, check_hears_videos, sound_arguments
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers.video_utils import VideoMetadata  # noqa: E402


def media_arguments(processor: Any, media: Sequence[SampledVideo], *, rate: int) -> dict[str, Any]:
    """The arguments for the media of a text, in their order; sounds have `rate` samples a second.

    Raises:
        UnsupportedModelError: the model does not read media of these kinds, or no sounds of this rate.
        VideoError: a sound is longer than the model hears.
    """
    videos, images = ([each for each in media if each.kind == kind] for kind in ("video", "image"))
    arguments: dict[str, Any] = {}
    if videos:
        check_sees_videos(processor)
        arguments |= {
            "videos": [channels_first(video.frames) for video in videos],
            "video_metadata": [_metadata(video) for video in videos],
            "videos_kwargs": processor_settings(processor.video_processor) | {"return_tensors": "pt"},
        }
    if images:
        check_reads_images(processor)
        arguments |= {
            "images": [channels_first(image.frames)[0] for image in images],
            "images_kwargs": image_settings(processor.image_processor) | {"return_tensors": "pt"},
        }
    sounds = [each for each in media if each.waveform is not None]
    if sounds:
        check_hears(processor, rate=rate)
        waveforms = [each.waveform for each in sounds if each.waveform is not None]
        check_heard_whole(processor, waveforms)
        arguments |= sound_arguments(processor, waveforms)
    if any(each.kind == "video" for each in sounds):
        check_hears_videos(processor)
        arguments |= _as_tracks(sounds, videos)
        arguments["videos_kwargs"] |= _sampled_at(videos[0])
    return arguments


def count_placeholders(processor: Any, text: str) -> int:
    """How many media a rendered text has a place for."""
    return sum(text.count(placeholder_token(processor, kind)) for kind in ("video", "image", "audio"))


def _as_tracks(sounds: Sequence[SampledVideo], videos: Sequence[SampledVideo]) -> dict[str, Any]:
    """Of each sound the number of the video that it is heard with; null where it stands alone."""
    numbers = {id(video): number for number, video in enumerate(videos)}
    return {
        "load_audio_from_video": True,
        "audio_from_video_indices": [numbers.get(id(sound)) for sound in sounds],
    }


def _sampled_at(video: SampledVideo) -> dict[str, float]:
    """The rate of its frames, by which sounds are put between them."""
    return {"fps": 1 / grid_seconds(video.seconds_per_frame)} if video.seconds_per_frame else {}


def _metadata(video: SampledVideo) -> VideoMetadata:
    return VideoMetadata(
        total_num_frames=video.total_frames,
        fps=video.source_fps,
        frames_indices=list(video.frame_indices),
        height=video.frames.shape[1],
        width=video.frames.shape[2],
    )
