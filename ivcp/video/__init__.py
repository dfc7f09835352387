"""Videos, images and sounds: what is in a file, which frames of it are sampled, decoding, and the workers that do
it."""

from ivcp.video.clip_frames import ClipFrames
from ivcp.video.clips import decode, frame_times, load_clip, load_clips, probe
from ivcp.video.files import VideoError, VideoInfo
from ivcp.video.images import load_image, read_image
from ivcp.video.sampling import Span, sample_indices
from ivcp.video.sounds import load_sound

__all__ = [
    "ClipFrames",
    "Span",
    "VideoError",
    "VideoInfo",
    "decode",
    "frame_times",
    "load_clip",
    "load_clips",
    "load_image",
    "load_sound",
    "probe",
    "read_image",
    "sample_indices",
]
