import json
from pathlib import Path
from typing import Any

import pytest

from ivcp.data.annotations import AnnotatedRow, read_dataset
from ivcp.data.problems import Problems
from ivcp.data.registry import AnnotationError, read_dataset_info
from tests.data_sets import QUESTION, DataSet, sharegpt_row


def read(data_set: DataSet, *, token: str = "<ACTION>", media_dir: str | None = None) -> list[AnnotatedRow]:
    folder, problems = str(data_set.folder), Problems()
    info = read_dataset_info("actions", folder)
    rows = list(
        read_dataset("actions", info, dataset_dir=folder, media_dir=media_dir, action_token=token, problems=problems)
    )
    problems.raise_if_any()
    return rows


def test_the_documented_row(data_set: DataSet) -> None:
    row = sharegpt_row("clips/a.mp4", 0, start_seconds=1, end_seconds="2.5", split="valid")
    (read_row,) = read(data_set.add("actions", [row]))
    assert read_row.clip_id == "actions:0"
    assert read_row.video == str(data_set.folder / "clips/a.mp4")
    assert [message.role for message in read_row.messages] == ["user", "assistant"]
    assert read_row.messages[0].content == QUESTION
    assert (read_row.start_seconds, read_row.end_seconds, read_row.split) == (1.0, 2.5, "val")
    assert read_row.group == read_row.video


def test_the_users_newer_files(shared_data: Path, data_set: DataSet) -> None:
    """UCF101 in role/content turns, with `<ACT>` in the assistant's answer."""
    source = shared_data / "annotations" / "IVCP" / "ucf101_train.json"
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    data_set.add("actions", [], file_name=str(source), columns={"messages": "messages"}, tags=tags)
    rows = read(data_set, token="<ACT>", media_dir="/videos")
    assert len(rows) == 9537
    assert rows[0].video == "/videos/UCF101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"
    assert rows[0].group == rows[1].group == "v_ApplyEyeMakeup_g08"
    assert "<ACT>" in rows[0].messages[1].content
    with pytest.raises(AnnotationError) as caught:
        read(data_set)
    assert "9537 problem(s)" in str(caught.value)
    assert "rows 0, 1, 2, 3, 4 and 9532 more: <ACTION> is missing" in str(caught.value)
    assert "it has <ACT>: if that is the token, set action_token" in str(caught.value)


def test_question_answering_without_labels_is_refused(shared_data: Path, data_set: DataSet) -> None:
    source = shared_data / "annotations" / "IVCP" / "VideoEspresso_stage3.json"
    with pytest.raises(
        AnnotationError,
        match=r"none of its 752 rows has action_label; the row has conversations, videos: .* without labels",
    ):
        read(data_set.add("actions", [], file_name=str(source)))


def test_tags_that_do_not_fit_the_rows(data_set: DataSet) -> None:
    row = sharegpt_row("a.mp4", 0)
    with pytest.raises(AnnotationError, match=r"keys 'role' and 'content' expected, keys 'from', 'value' came"):
        read(data_set.add("actions", [row], tags={"role_tag": "role", "content_tag": "content"}))
    with pytest.raises(AnnotationError, match=r"from = 'human': expected 'user', 'gpt' or 'system'"):
        read(data_set.add("actions", [row], tags={"user_tag": "user"}))
    with pytest.raises(
        AnnotationError,
        match=r"key 'messages' expected.* the row has conversations: rename it, or set columns.messages",
    ):
        read(data_set.add("actions", [row], columns={"messages": "messages"}))
    with pytest.raises(
        AnnotationError, match=r"key 'instruction' expected, because formatting is alpaca; the row has conver"
    ):
        read(data_set.add("actions", [row], formatting="alpaca"))


def test_alpaca_rows(data_set: DataSet) -> None:
    row = {
        "instruction": "<video>What happens?",
        "input": "<ACTION>",
        "output": "He runs.",
        "system": "You watch.",
        "history": [["Hello", "Hi"]],
        "videos": ["a.mp4"],
        "action_label": "run",
    }
    (alpaca,) = read(data_set.add("actions", [row], formatting="alpaca"))
    turns = [(message.role, message.content) for message in alpaca.messages]
    assert turns == [
        ("system", "You watch."),
        ("user", "Hello"),
        ("assistant", "Hi"),
        ("user", "<video>What happens?\n<ACTION>"),
        ("assistant", "He runs."),
    ]


def test_rows_of_a_csv_file(data_set: DataSet) -> None:
    (data_set.folder / "a.csv").write_text(
        "instruction,videos,action_label,group\n<video>What?<ACTION>,a.mp4,3,p1\n<video>What?<ACTION>,[b].mp4,run,\n"
    )
    first, second = read(data_set.add("actions", [], file_name="a.csv", formatting="alpaca"))
    assert (first.label, first.group, second.label) == ("3", "p1", "run")
    assert str(second.video).endswith("[b].mp4")


def test_videos_may_be_uris_or_frame_images(data_set: DataSet) -> None:
    rows = [sharegpt_row("s3://bucket/a.mp4", 0), sharegpt_row("/abs/b.mp4", 0)]
    rows.append(sharegpt_row("", 0) | {"videos": [["f/1.jpg", "f/2.jpg"]]})
    remote, absolute, images = read(data_set.add("actions", rows), media_dir="s3://media/x")
    assert (remote.video, absolute.video) == ("s3://bucket/a.mp4", "/abs/b.mp4")
    assert images.video == ("s3://media/x/f/1.jpg", "s3://media/x/f/2.jpg")
    assert images.group == "s3://media/x/f"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conversations": [{"from": "human", "value": "<video>What?"}]}, "<ACTION> is missing"),
        ({"conversations": [{"from": "human", "value": "<video><ACTION><ACTION>"}]}, "<ACTION> stands 2 times"),
        ({"conversations": [{"from": "human", "value": "What?<ACTION>"}]}, "0 <video> tag(s) for 1 video(s)"),
        ({"conversations": [{"from": "human", "value": "<ACTION><video>"}]}, "<video> stands behind <ACTION>"),
        ({"conversations": []}, "conversations is empty"),
        ({"conversations": ["x"]}, "'x' came"),
        ({"videos": ["a.mp4", "b.mp4"]}, "1 <video> tag(s) for 2 video(s)"),
        ({"videos": []}, "videos is missing"),
        ({"videos": [3]}, "videos = [3]: expected paths"),
        ({"action_label": None}, "action_label is missing"),
        ({"action_label": 1.5}, "action_label = 1.5: expected a class id"),
        ({"action_label": True}, "action_label = True: expected a class id"),
        ({"action_label": -1}, "action_label = -1: class ids count from 0"),
        ({"split": "holdout"}, "split = 'holdout': expected train, val or test"),
        ({"start_seconds": 3, "end_seconds": 2}, "expected 0 <= start < end"),
        ({"start_seconds": "soon"}, "start_seconds = 'soon': expected seconds"),
    ],
)
def test_a_bad_row_is_named(data_set: DataSet, change: dict[str, Any], message: str) -> None:
    rows = [sharegpt_row("a.mp4", 0), sharegpt_row("a.mp4", 0) | change]
    with pytest.raises(AnnotationError) as caught:
        read(data_set.add("actions", rows))
    assert message in str(caught.value)
    assert f"data set actions ({data_set.folder / 'actions.json'}) row 1: " in str(caught.value)


def test_all_problems_are_said_at_once(data_set: DataSet) -> None:
    rows = [sharegpt_row("a.mp4", None) for _ in range(7)]
    rows.append(sharegpt_row("a.mp4", 0, split="x") | {"videos": []})
    with pytest.raises(AnnotationError) as caught:
        read(data_set.add("actions", rows))
    lines = str(caught.value).splitlines()
    assert lines[0] == "9 problem(s) in the annotations:"
    assert lines[1].endswith("rows 0, 1, 2, 3, 4 and 2 more: action_label is missing: expected a class id or name")
    assert len(lines) == 4


def test_an_empty_data_set(data_set: DataSet) -> None:
    with pytest.raises(AnnotationError, match=r"data set actions .* is empty"):
        read(data_set.add("actions", []))
    (data_set.folder / "actions.json").write_text("\n")
    with pytest.raises(AnnotationError, match=r"data set actions .* is empty"):
        read(data_set)
    (data_set.folder / "actions.json").write_text(json.dumps(["x"]))
    with pytest.raises(AnnotationError, match="row 0: expected an object with keys, got str"):
        read(data_set)


def test_problems_that_differ_in_a_value_only_are_one(data_set: DataSet) -> None:
    rows = [sharegpt_row(f"https://x.org/{number}.mp4", 1.0 + number) for number in range(7)]
    with pytest.raises(AnnotationError) as caught:
        read(data_set.add("actions", rows))
    lines = str(caught.value).splitlines()
    assert lines[0] == "14 problem(s) in the annotations:"
    assert len(lines) == 3
    assert "rows 0, 1, 2, 3, 4 and 2 more: videos: 'https://x.org/0.mp4' is an address on the web" in lines[1]
    assert "rows 0, 1, 2, 3, 4 and 2 more: action_label = 1.0: expected a class id" in lines[2]


def test_a_media_dir_that_is_no_folder(data_set: DataSet) -> None:
    data_set.add("actions", [sharegpt_row("a.mp4", 0)])
    with pytest.raises(AnnotationError, match=r"media_dir: 'https://x.org/' is an address on the web"):
        read(data_set, media_dir="https://x.org/")
    (row,) = read(data_set, media_dir="file:///media")
    assert row.video == "/media/a.mp4"
