from typing import Any

from ivcp.preparation.fingerprint import clip_key
from ivcp.records import Clip, ClipMedium, Message

LINE = (
    '{"clip_id":"d:0","dataset":"d","row":0,"video":"/m/a.mp4","messages":[{"role":"user","content":"<video>?"}],'
    '"label":1,"split":"train","group":"g","start_seconds":0.5,"end_seconds":null,"num_frames":20,'
    '"content_hash":"sha256:aa","video_sha256":"aa"}'
)
"""As versions before rows without classes wrote it: what was prepared from it is found by hashes of these bytes."""
MORE = ClipMedium(video=("/m/0.jpg", "/m/1.jpg"), num_frames=2, content_hash="sha256:bb")


def changed(**fields: Any) -> Clip:
    return Clip.model_validate_json(LINE).model_copy(update=fields)


def test_a_row_with_a_class_is_written_as_ever() -> None:
    clip = Clip.model_validate_json(LINE)
    assert clip.model_dump_json() == LINE
    assert clip_key(clip, candidates=1, data_fingerprint="").hex() == "9ee671edeac99f8a17418d6b64555c7b"


def test_what_only_some_rows_have_is_written_and_read() -> None:
    clip = changed(label=None, more_videos=(MORE,), rejected="No.", desirable=False)
    assert Clip.model_validate_json(clip.model_dump_json()) == clip
    assert clip.media == (
        ClipMedium(video="/m/a.mp4", num_frames=20, content_hash="sha256:aa", video_sha256="aa"),
        MORE,
    )
    text = changed(video=None, num_frames=0, content_hash=None, messages=(Message(role="assistant", content="x"),))
    assert text.media == ()
    assert text.source == ""


def test_all_that_frames_and_tokens_depend_on_is_in_the_key() -> None:
    clips = [
        changed(),
        changed(rejected="No."),
        changed(rejected="Nobody."),
        changed(more_videos=(MORE,)),
        changed(more_videos=(MORE, MORE)),
        changed(more_videos=(MORE.model_copy(update={"content_hash": "sha256:cc"}),)),
        changed(video=None, num_frames=0, content_hash=None),
    ]
    assert len({clip_key(clip, candidates=1, data_fingerprint="") for clip in clips}) == len(clips)
