"""Conversations: LLaMA-Factory's entries, and question answering."""

import json

import pytest

from ivcp.data.registry import AnnotationError
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
