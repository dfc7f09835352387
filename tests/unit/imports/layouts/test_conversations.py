"""Conversations: LLaMA-Factory's entries, and question answering."""

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from ivcp.data.problems import AnnotationError
from ivcp.imports.listing import ImportRefusedError, LayoutOptions
from ivcp.settings import from_flat
from ivcp.validation.catalog import Catalog, read_video
from ivcp.validation.rows.read import read_annotations
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


def _png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (shade, shade, shade)).save(buffer, format="PNG")
    return buffer.getvalue()


def _data_url(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _talking(importer, **settings):
    """The media of each row of a data set that trains a model to write, as a run reads them."""
    with Catalog() as catalog:
        config = from_flat({"dataset": "mine", "dataset_dir": str(importer.dataset_dir), "stage": "sft", **settings})
        read_annotations(config, catalog)
        found: dict[int, list[tuple[str, str]]] = {}
        asked = "SELECT clip, kind, name FROM clip_video JOIN video ON video.id = clip_video.video"
        for clip, kind, name in catalog.ask(f"{asked} ORDER BY clip, number"):
            found.setdefault(clip, []).append((kind, read_video(name)))
        return list(found.values())


def test_images_alone_and_beside_videos(importer, videos, tmp_path):
    """LLaVA's rows, and a row of questions in columns."""
    root = videos(["a.mp4", "x/b.jpg", "c.png"])
    turns = [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "A man."}]
    source = write(tmp_path / "llava.json", json.dumps([{"image": "x\\b.jpg", "conversations": turns}]))
    importer.write("questions", source, videos=str(root))
    assert importer.registry["mine"]["columns"] == {
        "videos": "videos", "messages": "conversations", "images": "image",
    }  # fmt: skip
    assert _talking(importer) == [[("image", str(root / "x/b.jpg"))]]

    asked = [
        {"images": ["x/b.jpg", "c.png"], "question": "Who?", "answer": "A man."},
        {"video": "a.mp4", "images": ["c.png"], "question": "Who?", "answer": "A man."},
    ]
    source = write(tmp_path / "asked.json", json.dumps(asked))
    importer.write(
        "questions", source, videos=str(root), overwrite=True, options=LayoutOptions(columns={"videos": "video"})
    )
    assert _talking(importer) == [
        [("image", str(root / "x/b.jpg")), ("image", str(root / "c.png"))],
        [("video", str(root / "a.mp4")), ("image", str(root / "c.png"))],
    ]
    source = write(tmp_path / "gone.json", json.dumps([{"image": "gone.jpg", "conversations": turns}]))
    with pytest.raises(ImportRefusedError, match=r"1 of 1 listed videos and images are not in .* \(gone\.jpg\)"):
        importer.write("questions", source, videos=str(root), overwrite=True)


def test_rows_about_sounds(importer, videos, tmp_path):
    """In a column, in the parts of a turn beside an image, and as content."""
    root = videos(["a.wav", "b.jpg"])
    turns = [{"from": "human", "value": "<audio>Who speaks?"}, {"from": "gpt", "value": "A man."}]
    source = write(tmp_path / "heard.json", json.dumps([{"audios": ["a.wav"], "conversations": turns}]))
    importer.write("questions", source, videos=str(root))
    assert importer.registry["mine"]["columns"]["audios"] == "audios"
    assert _talking(importer) == [[("audio", str(root / "a.wav"))]]

    def row(*parts):
        content = [*parts, {"type": "text", "text": "Who speaks?"}]
        return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "A man."}]}

    rows = [
        row({"type": "audio", "audio": "a.wav"}, {"type": "image", "image": "b.jpg"}),
        row({"type": "audio_url", "audio_url": {"url": _data_url(b"RIFF", "audio/x-wav")}}),
    ]
    importer.write("questions", write(tmp_path / "parts.json", json.dumps(rows)), videos=str(root), overwrite=True)
    media = _talking(importer)
    assert [[kind for kind, _ in each] for each in media] == [["audio", "image"], ["audio"]]
    assert Path(media[1][0][1]).read_bytes() == b"RIFF"
    source = write(tmp_path / "gone.json", json.dumps([{"audio": "gone.wav", "conversations": turns}]))
    with pytest.raises(ImportRefusedError, match=r"1 of 1 listed videos and audios are not in .* \(gone\.wav\)"):
        importer.write("questions", source, videos=str(root), overwrite=True)


def test_content_in_rows_becomes_files(importer, videos, tmp_path):
    """OpenAI's parts, and columns; the same content is one file, and other parts keep their path."""
    root, (dark, light) = videos(["a.mp4", "b.jpg"]), (_data_url(_png(0)), _data_url(_png(255)))
    film = _data_url((root / "a.mp4").read_bytes(), "video/mp4")

    def row(*parts, **columns):
        content = [{"type": "text", "text": "Look: "}, *parts, {"type": "text", "text": "Who?"}]
        turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "A man."}]
        return {"messages": turns, **columns}

    rows = [
        row({"type": "image_url", "image_url": {"url": dark}}, {"type": "image_url", "image_url": {"url": "b.jpg"}}),
        row({"type": "image_url", "image_url": {"url": light}}, {"type": "video_url", "video_url": {"url": film}}),
        row({"type": "image"}, images=[dark]),
    ]
    importer.write("questions", write(tmp_path / "openai.json", json.dumps(rows)), videos=str(root))
    media = _talking(importer)
    assert [[kind for kind, _ in row] for row in media] == [["image", "image"], ["image", "video"], ["image"]]
    assert media[0][1][1] == str(root / "b.jpg")
    assert media[2] == media[0][:1]
    assert Path(media[0][0][1]).read_bytes() == _png(0)
    assert Path(media[1][0][1]).read_bytes() == _png(255)
    assert Path(media[1][1][1]).read_bytes() == (root / "a.mp4").read_bytes()
    assert len(list((importer.dataset_dir / "mine" / "media").iterdir())) == 3
    written = importer.rows()
    assert written[0]["images"][0].startswith("mine/media/"), "they move with the data set"
    assert written[0]["messages"][0]["content"][1] == {"type": "image"}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:image/png;base64,$$$", r"row 0: 'data:image/png;base64,\$\$\$'…: it is no base64"),
        ("data:image/png,abc", "a data: URL must be data:<type>;base64,<data>"),
        ("data:text/html;base64,aGk=", "expected an image, a video or a sound, as data:image/png;base64,…"),
    ],
)
def test_content_that_is_none_is_named(importer, videos, tmp_path, url, message):
    turns = [{"from": "human", "value": "<image>Who?"}, {"from": "gpt", "value": "A man."}]
    source = write(tmp_path / "rows.json", json.dumps([{"images": [url], "conversations": turns}]))
    with pytest.raises(AnnotationError, match=message):
        importer.write("questions", source, videos=str(videos(["a.mp4"])))
    assert not (importer.dataset_dir / "mine").exists()
