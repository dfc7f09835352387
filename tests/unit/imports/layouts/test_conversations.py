"""Conversations: LLaMA-Factory's entries, and question answering."""

import json

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.imports.listing import ImportRefusedError, LayoutOptions
from tests.unit.imports.layout_files import write

OPENAI_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


def _users_row(number: int, label: int) -> dict:
    """As `ucf101_train.json` has them."""
    turns = [
        {"content": "<video>What action is being performed in this video?", "role": "user"},
        {"content": "The action being performed is <ACT>.", "role": "assistant"},
    ]
    return {"messages": turns, "videos": [f"UCF101/v_A_g{number:02}_c01.avi"], "action_label": label}


def test_llamafactory_entry_as_it_is(importer, videos, tmp_path):
    root = videos(f"UCF101/v_A_g{n:02}_c01.avi" for n in range(4))
    source = tmp_path / "llama" / "dataset_info.json"
    entry = {"columns": {"messages": "messages", "videos": "videos"}, "formatting": "sharegpt", "tags": OPENAI_TAGS}
    others = {"hub": {"hf_hub_url": "someone/else"}}
    write(source, json.dumps({"mine": {"file_name": "ucf.json", **entry}, **others}))
    write(source.parent / "ucf.json", json.dumps([_users_row(n, n % 2) for n in range(4)]))
    with pytest.raises(AnnotationError, match=r"it has <ACT>: if that is the token, set action_token"):
        importer("llamafactory", source.parent, videos=str(root))
    annotations = importer("llamafactory", source.parent, videos=str(root), action_token="<ACT>")
    assert [row.video for row in annotations.rows] == [str(root / f"UCF101/v_A_g{n:02}_c01.avi") for n in range(4)]
    assert importer.registry["mine"]["tags"] == OPENAI_TAGS
    assert importer.rows()[0]["messages"] == _users_row(0, 0)["messages"]


def test_llamafactory_alpaca_rows(importer, videos, tmp_path):
    root = videos(["a.mp4", "b.mp4"])
    rows = [
        {"instruction": "<video>What?<ACTION>", "output": "Run.", "videos": [name], "action_label": label}
        for name, label in (("a.mp4", "run"), ("b.mp4", "sit"))
    ]
    write(tmp_path / "llama" / "dataset_info.json", json.dumps({"mine": {"file_name": "rows.json"}}))
    write(tmp_path / "llama" / "rows.json", json.dumps(rows))
    annotations = importer("llamafactory", tmp_path / "llama", videos=str(root))
    assert annotations.labels.label_names == ("run", "sit")


def _espresso(number: int) -> dict:
    turns = [
        {"from": "human", "value": "<video>How do the steps at 360 seconds contribute?"},
        {"from": "gpt", "value": "<think>Peeled first.</think><answer>They seal it.</answer>"},
    ]
    return {"conversations": turns, "videos": [f"VideoEspresso/Youcook2/merged/4/{number}.mp4"]}


def test_question_answering_is_kept_and_does_not_classify(importer, videos, tmp_path):
    root = videos(f"VideoEspresso/Youcook2/merged/4/{n}.mp4" for n in range(3))
    source = write(tmp_path / "VideoEspresso_stage3.json", json.dumps([_espresso(n) for n in range(3)]))
    result = importer.write("questions", source, videos=str(root))
    assert result.num_classes is None
    assert any("--label-map" in note for note in result.notes)
    assert importer.rows()[0]["conversations"] == _espresso(0)["conversations"]
    with pytest.raises(AnnotationError, match="question answering without labels"):
        importer.read()


def test_question_answering_with_a_class_for_each_video(importer, videos, tmp_path):
    root = videos(f"VideoEspresso/Youcook2/merged/4/{n}.mp4" for n in range(3))
    source = write(tmp_path / "VideoEspresso_stage3.json", json.dumps([_espresso(n) for n in range(3)]))
    classes = write(tmp_path / "classes.csv", "path,label\n0,cook\n1.mp4,eat\n")
    options = LayoutOptions(label_map=classes)
    with pytest.raises(AnnotationError, match=r"row 2: its video has no class in .*classes\.csv"):
        importer("questions", source, videos=str(root), options=options)
    annotations = importer("questions", source, videos=str(root), options=options, skip_bad_rows=True)
    assert annotations.labels.label_names == ("cook", "eat")
    assert annotations.rows[0].messages[0].content.endswith("contribute?<ACTION>")


def test_questions_in_columns_and_with_one_video(importer, videos, tmp_path):
    root = videos(["a.mp4", "b.mp4"])
    rows = [
        {"video": "a.mp4", "Q": "What happens?", "answer": "A run."},
        {"video": "b.mp4", "Q": "And?", "answer": "Sat."},
    ]
    source = write(tmp_path / "qa.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(ImportRefusedError, match="--column question=Q"):
        importer.write("questions", source, videos=str(root))
    importer.write("questions", source, videos=str(root), options=LayoutOptions(columns={"question": "Q"}))
    assert importer.rows()[0]["conversations"][0] == {"from": "human", "value": "<video>What happens?"}
    assert importer.registry["mine"]["columns"]["videos"] == "video"


def _asked(**row) -> dict:
    turns = [{"from": "human", "value": "<video>What?<ACTION>"}]
    return {"conversations": turns, "videos": ["a.mp4"], "action_label": "run"} | row


def test_rows_of_several_files_keep_their_numbers(importer, videos, tmp_path):
    root = videos(["a.mp4", "b.mp4"])
    first = write(tmp_path / "first.jsonl", "\n".join(json.dumps(_asked()) for _ in range(3)))
    second = write(tmp_path / "second.jsonl", "\n".join(json.dumps(row) for row in (_asked(), _asked(split="x"))))
    with pytest.raises(AnnotationError, match=r"second.jsonl\) row 1: split = 'x': expected train, val or test"):
        importer.write("questions", first, second, videos=str(root))


def test_labels_and_windows_paths_are_written_as_they_are_meant(importer, videos, tmp_path):
    root = videos(["x/a.mp4", "x/b.mp4", "x/c.mp4"])
    rows = [
        _asked(videos=["x\\a.mp4"], action_label="run "),
        _asked(videos=[f"file://{root}/x/b.mp4"], action_label="sit"),
        _asked(videos="x/c.mp4", action_label="run"),
    ]
    annotations = importer("questions", write(tmp_path / "qa.json", json.dumps(rows)), videos=str(root))
    assert annotations.labels.label_names == ("run", "sit")
    assert [row.video for row in annotations.rows] == [str(root / f"x/{name}.mp4") for name in "abc"]


def test_missing_questions_and_answers(importer, videos, tmp_path):
    root = videos(["a.mp4", "b.mp4"])
    rows = [
        {"video": "a.mp4", "question": "What?", "answer": None},
        {"video": "b.mp4", "question": None, "answer": "x"},
    ]
    source = write(tmp_path / "qa.json", json.dumps(rows))
    with pytest.raises(AnnotationError, match="row 1: question has no text"):
        importer.write("questions", source, videos=str(root))
    importer.write("questions", source, videos=str(root), skip_bad_rows=True)
    assert importer.rows()[0]["conversations"] == [{"from": "human", "value": "<video>What?"}]


def test_a_table_of_questions_in_gbk(importer, videos, tmp_path):
    root = videos(["a.mp4", "b.mp4"])
    source = tmp_path / "qa.csv"
    source.write_bytes("video;question;answer\na.mp4;做什么;跑步\nb.mp4;做什么;坐下\n".encode("gbk"))
    with pytest.raises(
        ImportRefusedError, match=r"qa.csv: .*: convert it to UTF-8, .*; or name its encoding, e.g. --en"
    ):
        importer.write("questions", source, videos=str(root))
    importer.write("questions", source, videos=str(root), options=LayoutOptions(encoding="gbk"))
    assert importer.rows()[1]["conversations"][1] == {"from": "gpt", "value": "坐下"}


def test_a_class_for_rows_whose_content_is_a_list_of_parts(importer, videos, tmp_path):
    root = videos(["a.mp4", "b.mp4"])
    parts = [{"type": "video"}, {"type": "text", "text": "What?"}]
    rows = [{"messages": [{"role": "user", "content": parts}], "videos": [name]} for name in ("a.mp4", "b.mp4")]
    classes = write(tmp_path / "classes.json", '{"a": "run", "b": "sit"}')
    source = write(tmp_path / "qa.json", json.dumps(rows))
    annotations = importer("questions", source, videos=str(root), options=LayoutOptions(label_map=classes))
    assert annotations.rows[0].messages[0].content == "<video>What?<ACTION>"


def test_a_label_map_that_contradicts_itself(importer, videos, tmp_path):
    root = videos(["a.mp4", "b.mp4"])
    source = write(tmp_path / "qa.json", json.dumps([_asked(), _asked(videos=["b.mp4"])]))
    classes = write(tmp_path / "classes.csv", "path,label\na,run\nb,sit\na,sit\n")
    with pytest.raises(ImportRefusedError, match=r"classes.csv: a stands there twice, with several labels"):
        importer.write("questions", source, videos=str(root), options=LayoutOptions(label_map=classes))
