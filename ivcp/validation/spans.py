"""Which frames of each clip will be read: finds spans outside of their video before anything is prepared."""

from __future__ import annotations

from ivcp.settings import VideoConfig
from ivcp.validation.catalog import Catalog
from ivcp.validation.frame_times import COLUMNS, StoredTimes
from ivcp.video import Span, VideoError
from ivcp.video.sampling import choose_frames

_TOLERATED_SECONDS = 1.0
"""How far a span may reach beyond the end of its video: times in annotations are rounded."""


def check_spans(catalog: Catalog, video: VideoConfig) -> None:
    """Notes how many frames each video of a usable clip gives, or why the clip's span cannot be used.

    The reason is `span_outside_video`, where no frame lies in it or where it ends after the video.
    """
    catalog.ask(
        "UPDATE clip_video SET num_sampled = (SELECT num_frames FROM video WHERE id = clip_video.video) "
        "WHERE video IN (SELECT id FROM video WHERE kind != 'video')"
    )
    clips = (
        f"SELECT clip_video.id, clip.id, clip.start, clip.stop, {COLUMNS} FROM clip_video "
        "JOIN clip ON clip.id = clip_video.clip JOIN video ON video.id = clip_video.video "
        "WHERE clip.reason IS NULL AND video.kind = 'video' AND clip_video.id > ?"
    )
    for batch in catalog.in_batches(clips):
        counts: list[tuple[int, int]] = []
        errors: list[tuple[str, str, int]] = []
        for number, clip, start, stop, *times in batch:
            timeline = StoredTimes._make(times).timeline
            try:
                chosen = choose_frames(timeline, Span(start, stop), video)
            except VideoError as error:
                errors.append((error.reason, error.detail, clip))
                continue
            if stop is not None and stop > timeline.end_seconds + _TOLERATED_SECONDS:
                detail = f"end_seconds = {stop:g}, but the video ends at {timeline.end_seconds:.2f} s"
                errors.append(("span_outside_video", detail, clip))
            else:
                counts.append((len(chosen.places), number))
        catalog.change("UPDATE clip_video SET num_sampled = ? WHERE id = ?", counts)
        catalog.change("UPDATE clip SET reason = ?, detail = ? WHERE id = ?", errors)
