"""Rows of the kinds that have no classes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ivcp.data.annotations import AnnotatedRow, read_dataset
from ivcp.data.problems import AnnotationError, Problems
from ivcp.data.registry import read_dataset_info
from ivcp.records import RowKind
from tests.data_sets import DataSet

PAIRS = {"ranking": True, "columns": {"chosen": "chosen", "rejected": "rejected"}}
TAGS = {"columns": {"kto_tag": "tag"}}
TEXTS = {"formatting": "alpaca", "columns": {"prompt": "text"}}
ASKED = [{"from": "human", "value": "<video>Who?"}]
ANSWER = {"from": "gpt", "value": "A man."}


def read(folder: Path, kind: RowKind, row: dict[str, Any], **entry: Any) -> AnnotatedRow:
    return read_file(DataSet(folder).add("d", [row], **entry), kind)


def read_file(data: DataSet, kind: RowKind) -> AnnotatedRow:
    folder = data.folder
    problems = Problems()
    info = read_dataset_info("d", str(folder), rows=kind)
    rows = list(
        read_dataset(
            "d", info, dataset_dir=str(folder), media_dir="/m", action_token="<ACTION>", problems=problems, rows=kind
        )
    )
    problems.raise_if_any()
    return rows[0]


def said(row: AnnotatedRow) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in row.messages]


def test_alpaca_with_history_and_system(tmp_path: Path) -> None:
    row = read(
        tmp_path,
        "conversations",
        {
            "instruction": "<video>Where?",
            "input": "In one word.",
            "output": "Home.",
            "history": [["<video>Who?", "A man."]],
            "system": "Be brief.",
            "videos": ["a.mp4", ["f/0.jpg", "f/1.jpg"]],
            "action_label": "ignored",
        },
        formatting="alpaca",
    )
    assert said(row) == [
        ("system", "Be brief."),
        ("user", "<video>Who?"),
        ("assistant", "A man."),
        ("user", "<video>Where?\nIn one word."),
        ("assistant", "Home."),
    ]
    assert row.paths == ("/m/a.mp4", ("/m/f/0.jpg", "/m/f/1.jpg"))
    assert row.label is None
    assert row.group == "/m/a.mp4"


def test_images_and_videos_are_in_the_order_of_their_tags(tmp_path: Path) -> None:
    asked = {"from": "human", "value": "<image>or<video>or<image>?"}
    row = {"conversations": [asked, ANSWER], "videos": "v.mp4", "images": ["a.jpg", "s3://b/c.png"]}
    found = read(tmp_path, "conversations", row, columns={"images": "images"})
    assert found.media == (("image", "/m/a.jpg"), ("video", "/m/v.mp4"), ("image", "s3://b/c.png"))
    assert found.group == "/m/a.jpg"


def test_openai_parts_and_no_video(tmp_path: Path) -> None:
    content = [{"type": "text", "text": "Two and "}, {"type": "text", "text": "<ACTION>?"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "4"}]
    row = read(tmp_path, "conversations", {"messages": messages}, formatting="openai")
    assert said(row) == [("user", "Two and <ACTION>?"), ("assistant", "4")]
    assert row.paths == ()
    other = read(tmp_path, "conversations", {"messages": [messages[0], ANSWER_OF_OPENAI]}, formatting="openai")
    assert other.group == row.group, "the same question stays in one split"


ANSWER_OF_OPENAI = {"role": "assistant", "content": "5"}


@pytest.mark.parametrize(
    ("row", "entry"),
    [
        (
            {
                "conversations": ASKED,
                "chosen": ANSWER,
                "rejected": {"from": "gpt", "value": "A dog."},
                "videos": "a.mp4",
            },
            PAIRS,
        ),
        (
            {
                "messages": [{"role": "user", "content": "<video>Who?"}],
                "chosen": {"role": "assistant", "content": "A man."},
                "rejected": {"role": "assistant", "content": "A dog."},
                "videos": ["a.mp4"],
            },
            PAIRS | {"formatting": "openai"},
        ),
        (
            {"instruction": "<video>Who?", "better": "A man.", "worse": "A dog.", "videos": ["a.mp4"]},
            {"formatting": "alpaca", "ranking": True, "columns": {"chosen": "better", "rejected": "worse"}},
        ),
    ],
)
def test_pairs(tmp_path: Path, row: dict[str, Any], entry: dict[str, Any]) -> None:
    found = read(tmp_path, "pairs", row, **entry)
    assert said(found) == [("user", "<video>Who?"), ("assistant", "A man.")]
    assert found.rejected == "A dog."
    assert found.desirable is None


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_pairs_in_tables(tmp_path: Path, suffix: str) -> None:
    row = {"conversations": ASKED, "videos": ["a.mp4"], "chosen": ANSWER, "rejected": {"from": "gpt", "value": "{}"}}
    if suffix == "csv":
        with (tmp_path / "pairs.csv").open("w", newline="") as file:
            csv.writer(file).writerows([row.keys(), map(json.dumps, row.values())])
    else:
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "pairs.parquet")
    found = read_file(DataSet(tmp_path).add("d", [], file_name=f"pairs.{suffix}", **PAIRS), "pairs")
    assert said(found) == [("user", "<video>Who?"), ("assistant", "A man.")]
    assert found.rejected == "{}"
    assert found.paths == ("/m/a.mp4",)


def test_an_answer_that_is_json_is_a_text(tmp_path: Path) -> None:
    row = {"instruction": "Write JSON.", "chosen": '{"value": 1}', "rejected": "{1"}
    found = read(tmp_path, "pairs", row, **PAIRS | {"formatting": "alpaca"})
    assert said(found)[-1] == ("assistant", '{"value": 1}')
    assert found.rejected == "{1"


@pytest.mark.parametrize(("tag", "expected"), [(True, True), (False, False), ("True", True), ("false", False)])
def test_tags(tmp_path: Path, tag: bool | str, expected: bool) -> None:
    row = read(tmp_path, "tags", {"conversations": [*ASKED, ANSWER], "videos": ["a.mp4"], "tag": tag}, **TAGS)
    assert row.desirable is expected
    assert row.rejected is None


def test_texts_hold_media(tmp_path: Path) -> None:
    row = read(tmp_path, "texts", {"text": "See <video>, then <video>.", "videos": ["a.mp4", "b.mp4"]}, **TEXTS)
    assert said(row) == [("assistant", "See <video>, then <video>.")]
    assert row.paths == ("/m/a.mp4", "/m/b.mp4")
    assert read(tmp_path, "texts", {"text": "Plain."}, **TEXTS).paths == ()


@pytest.mark.parametrize(
    ("kind", "entry", "message"),
    [
        ("conversations", PAIRS, "ranking = true: pairs of answers are for stage: dpo or rm; stage: sft, grpo"),
        ("conversations", TAGS, "columns.kto_tag = 'tag': answers with a tag are for stage: kto"),
        ("tags", PAIRS, "ranking = true: pairs of answers are for stage: dpo or rm; stage: kto"),
        ("tags", {}, "has no columns.kto_tag: stage: kto reads conversations with columns.kto_tag"),
        ("texts", PAIRS, "ranking = true: pairs of answers are for"),
        ("texts", {}, "formatting = sharegpt: stage: pt reads texts without turns: formatting: alpaca"),
        ("pairs", {}, "has no ranking: true: stage: dpo and rm read pairs"),
        ("pairs", {"ranking": True}, "has no columns.chosen, columns.rejected: stage: dpo and rm"),
        ("pairs", PAIRS | {"columns": PAIRS["columns"] | {"kto_tag": "t"}}, "columns.kto_tag = 't'"),  # type: ignore[operator]
        ("labels", PAIRS, "preference pairs have no class"),
    ],
)
def test_an_entry_of_another_kind_is_refused(
    tmp_path: Path, kind: RowKind, entry: dict[str, Any], message: str
) -> None:
    DataSet(tmp_path).add("d", [], **entry)
    with pytest.raises(AnnotationError, match=message):
        read_dataset_info("d", str(tmp_path), rows=kind)


TALK = {"conversations": [*ASKED, ANSWER], "videos": ["a.mp4"]}
SEEN = {
    "conversations": [{"from": "human", "value": "<video>Or<image>?"}, ANSWER],
    "videos": ["a.mp4"],
    "images": ["a.jpg"],
}
IMAGES = {"columns": {"images": "images"}}
PAIR = {"conversations": ASKED, "videos": ["a.mp4"], "chosen": ANSWER, "rejected": "No."}


@pytest.mark.parametrize(
    ("kind", "row", "entry", "message"),
    [
        ("conversations", TALK | {"conversations": ASKED}, {}, "there is no answer: expected the assistant's turn"),
        ("conversations", TALK | {"conversations": [ANSWER]}, {}, "turn 0 is the assistant's, expected the user's"),
        ("conversations", TALK | {"conversations": [*ASKED, *ASKED, ANSWER]}, {}, "turn 1 is the user's"),
        ("conversations", TALK | {"videos": []}, {}, r"1 <video> tag\(s\) for 0 video\(s\)"),
        (
            "conversations",
            {"conversations": [*ASKED, ANSWER], "video": "a.mp4"},
            {},
            r"1 <video> tag\(s\) for 0 video\(s\).*the row has video: rename it, or set columns.videos",
        ),
        ("conversations", TALK | {"videos": ["a.mp4", "b.mp4"]}, {}, r"1 <video> tag\(s\) for 2 video\(s\)"),
        (
            "conversations",
            TALK | {"conversations": [*ASKED, {"from": "gpt", "value": "<video>"}]},
            {},
            "<video> stands in an answer",
        ),
        (
            "conversations",
            {"conversations": [{"from": "human", "value": "Who?"}, ANSWER], "start_seconds": 1},
            {},
            "0 videos with a start or an end",
        ),
        ("conversations", TALK | {"conversations": [*ASKED, {"from": "gpt", "value": " "}]}, {}, "has no text"),
        ("conversations", TALK | {"images": ["a.jpg"]}, {"columns": {"images": "images"}}, r"0 <image> tag\(s\) for 1"),
        ("conversations", SEEN | {"images": [["a.jpg"]]}, IMAGES, "images = .*: expected the path of each image"),
        ("conversations", SEEN | {"images": []}, IMAGES, r"1 <image> tag\(s\) for 0 image\(s\)"),
        ("conversations", SEEN, {}, r"1 <image> tag.*the row has images: rename it, or set columns.images"),
        ("conversations", SEEN | {"end_seconds": 2}, IMAGES, "1 videos and images with a start or an end"),
        (
            "conversations",
            SEEN | {"conversations": [*ASKED, {"from": "gpt", "value": "<image>"}]},
            IMAGES,
            "<image> stands in an answer",
        ),
        (
            "conversations",
            {"messages": [{"role": "user", "content": [{"type": "image", "image": "b.jpg"}]}], "images": ["a.jpg"]},
            IMAGES | {"formatting": "openai"},
            "images and the parts of a turn both name a path",
        ),
        (
            "conversations",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png"}}]}
                ]
            },
            IMAGES | {"formatting": "openai"},
            "a part of a turn: 'data:image/png'",
        ),
        (
            "conversations",
            TALK | {"sound": ["a.wav"]},
            {"columns": {"audios": "sound"}},
            r"0 <audio> tag\(s\) for 1 audio\(s\)",
        ),
        (
            "conversations",
            TALK | {"conversations": [*ASKED, {"from": "gpt", "value": "<|im_end|>"}]},
            {},
            "which the model reads as its own token",
        ),
        ("pairs", {key: PAIR[key] for key in PAIR if key != "rejected"}, PAIRS, "rejected is missing"),
        ("pairs", PAIR | {"chosen": None}, PAIRS, "chosen is missing"),
        ("pairs", PAIR | {"rejected": "A man. "}, PAIRS, "chosen and rejected are the same"),
        ("pairs", PAIR | {"rejected": "A <video>."}, PAIRS, "<video> stands in an answer"),
        ("pairs", PAIR | {"chosen": {"from": "human", "value": "x"}}, PAIRS, "expected a text, or a turn of the"),
        ("pairs", PAIR | {"conversations": [*ASKED, ANSWER]}, PAIRS, "the conversation ends with an answer"),
        ("tags", TALK | {"tag": 1}, TAGS, "tag = 1: expected true"),
        ("tags", TALK | {"tag": "good"}, TAGS, "tag = 'good': expected true"),
        ("tags", TALK | {"label": True}, TAGS, "tag is missing.*the row has label"),
        ("texts", {"text": " "}, TEXTS, "text has no text"),
        ("texts", {"body": "x"}, TEXTS, "text has no text.*the row has body"),
        ("texts", {"text": "Who?", "output": "A man."}, TEXTS, "output = 'A man.': stage: pt reads texts"),
        ("texts", {"text": "See <video>."}, TEXTS, r"1 <video> tag\(s\) for 0 video\(s\)"),
    ],
)
def test_what_is_wrong_with_a_row_is_named(
    tmp_path: Path, kind: RowKind, row: dict[str, Any], entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(AnnotationError, match=message):
        read(tmp_path, kind, json.loads(json.dumps(row)), **entry)


def test_the_users_video_questions(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "annotations" / "IVCP" / "VideoEspresso_stage3.json"
    DataSet(tmp_path).add("d", [], file_name=str(source))
    info = read_dataset_info("d", str(tmp_path), rows="conversations")
    problems = Problems()
    rows = list(
        read_dataset(
            "d",
            info,
            dataset_dir=str(tmp_path),
            media_dir="/m",
            action_token="<ACTION>",
            problems=problems,
            rows="conversations",
        )
    )
    assert len(problems) == 0
    assert len(rows) == 752
    assert all(row.messages[-1].content.startswith("<think>") for row in rows[:5])
