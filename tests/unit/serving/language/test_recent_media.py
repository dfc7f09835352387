from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ivcp.data.prepared.sample import Medium
from ivcp.records import Message
from ivcp.serving.decoding import ModelFiles
from ivcp.serving.language.conversations import Conversation, ConversationRequest, read_conversation
from ivcp.serving.language.recent_media import RecentMedia, key_of
from ivcp.serving.served import VideoSource
from ivcp.video import VideoError
from tests.data_sets import make_clip
from tests.served_language import save_tiny_language_model

FRAMES = np.zeros((2, 10, 10, 3), dtype=np.uint8)


def test_what_was_unused_longest_makes_room() -> None:
    recent = RecentMedia(2 * FRAMES.nbytes + 1)
    for key in ("a", "b"):
        recent.put(key, Medium(FRAMES))
    assert recent.get("a") is not None
    recent.put("c", Medium(FRAMES))
    assert [recent.get(key) is not None for key in "abc"] == [True, False, True]
    assert recent.num_bytes == 2 * FRAMES.nbytes
    recent.put("a", Medium(FRAMES))
    assert recent.num_bytes == 2 * FRAMES.nbytes
    recent.put("large", Medium(np.zeros((9, 10, 10, 3), dtype=np.uint8)))
    assert recent.get("large") is None
    assert recent.get("a") is not None


def test_sounds_take_room_too() -> None:
    second = Medium(FRAMES[:0], waveform=np.zeros(16_000, dtype=np.float32))
    recent = RecentMedia(100_000)
    recent.put("a", second)
    assert recent.num_bytes == 64_000
    recent.put("b", second)
    assert recent.get("a") is None
    assert recent.num_bytes == 64_000


def test_a_medium_is_known_by_its_content(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    first, same, other = (VideoSource(tmp_path / name, name) for name in "abc")
    assert key_of(first) == key_of(same) != key_of(other)
    pictures = (tmp_path / "a", tmp_path / "c")
    keys = [
        key_of(first),
        key_of(VideoSource(tmp_path / "a", "a", kind="image")),
        key_of(VideoSource(pictures, "a")),
        key_of(VideoSource(pictures, "a", images_fps=5.0)),
        key_of(VideoSource(pictures[::-1], "a")),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("stage", ["sft", "rm"])
def test_what_is_known_is_not_decoded(tmp_path: Path, stage: str) -> None:
    files = ModelFiles(save_tiny_language_model(tmp_path / stage, stage))
    clip = VideoSource(make_clip(tmp_path / "clip.mp4"), "video 1")
    messages = (Message(role="user", content="<video>What is to be seen?"), Message(role="assistant", content="It."))
    said = Conversation(messages[: 1 + (stage == "rm")], (clip,))
    decoded = read_conversation(ConversationRequest(files, said, "a", has_answer=stage == "rm"))
    Path(str(clip.path)).unlink()
    known = read_conversation(ConversationRequest(files, said, "a", has_answer=stage == "rm", known=decoded.media))
    np.testing.assert_array_equal(known.input_ids, decoded.input_ids)
    np.testing.assert_array_equal(known.media[0].frames, decoded.media[0].frames)
    with pytest.raises(VideoError):
        read_conversation(ConversationRequest(files, said, "a", has_answer=stage == "rm", known=(None,)))
