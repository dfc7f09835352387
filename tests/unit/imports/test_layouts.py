"""Each layout in its real shape, to the annotations that a run reads."""

import json
from collections import Counter
from pathlib import Path

import pytest

from ivcp.data.registry import AnnotationError
from ivcp.imports.importing import LAYOUTS
from ivcp.imports.listing import ImportRefusedError, LayoutOptions


def by_video(annotations):
    """Video's name → class, split, group, start, end."""
    names = annotations.labels.label_names
    return {
        Path(row.video if isinstance(row.video, str) else row.video[0]).name: (
            names[row.label],
            row.split,
            row.group,
            row.start_seconds,
            row.end_seconds,
        )
        for row in annotations.rows
    }


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_folder_per_class(importer, videos):
    root = videos(
        ["run/a.mp4", "run/deep/b.AVI", "run/.DS_Store", "stand up/c.webm", "stand up/notes.txt", "loose.mp4"]
    )
    found = by_video(importer("folders", root))
    assert {name: row[:2] for name, row in found.items()} == {
        "a.mp4": ("run", "train"),
        "b.AVI": ("run", "train"),
        "c.webm": ("stand up", "train"),
    }
    assert any("1 video(s) lie outside" in note for note in importer.result.notes)
    assert importer.rows()[0]["action_label"] == 0


def test_a_folder_per_split_and_class(importer, videos):
    found = by_video(importer("folders", videos(["train/run/a.mp4", "train/sit/b.mp4", "val/run/c.mp4"])))
    assert {name: row[1] for name, row in found.items()} == {"a.mp4": "train", "b.mp4": "train", "c.mp4": "val"}
    assert importer.result.rows == {"mine_train": 2, "mine_val": 1}


def test_folders_without_classes(importer, videos):
    with pytest.raises(ImportRefusedError, match="expected a folder of videos per class, it has 1 files"):
        importer("folders", videos(["a.mp4"]))


CSV = """file,class,from,to,person,part
a.mp4,run,1.5,0:00:04.5,p1,train
a.mp4,sit,4.5,6,p1,train
b.mp4,sit,,,p2,dev
"""


def test_a_csv_with_columns_of_its_own(importer, videos, tmp_path):
    columns = {"path": "file", "label": "class", "start": "from", "end": "to", "group": "person", "split": "part"}
    root = videos(["a.mp4", "b.mp4"])
    table = write(tmp_path / "table.csv", CSV)
    annotations = importer("csv", table, videos=str(root), options=LayoutOptions(columns=columns))
    assert [(row.start_seconds, row.end_seconds) for row in annotations.rows] == [(1.5, 4.5), (4.5, 6.0), (None, None)]
    assert by_video(annotations)["b.mp4"] == ("sit", "val", "p2", None, None)


def test_a_tsv_in_gbk_beside_its_videos(importer, videos):
    root = videos(["甲.mp4", "乙.mp4"])
    (root / "表.tsv").write_bytes("path\tlabel\n甲.mp4\t跑步\n乙.mp4\t坐下\n".encode("gbk"))
    with pytest.raises(ImportRefusedError, match="--encoding gbk"):
        importer("csv", root / "表.tsv")
    found = by_video(importer("csv", root / "表.tsv", options=LayoutOptions(encoding="gbk"), language="zh"))
    assert found["甲.mp4"][0] == "跑步"
    assert "跑步" in importer.rows()[0]["conversations"][1]["value"]


UCF = {
    "classInd.txt": "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n",
    "trainlist02.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1\r\n"
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c02.avi 1\r\nHandstandPushups/v_HandStandPushups_g25_c01.avi 2\r\n",
    "testlist02.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi\r\n",
}


@pytest.fixture
def ucf_lists(tmp_path):
    for name, text in UCF.items():
        (tmp_path / "lists").mkdir(exist_ok=True)
        (tmp_path / "lists" / name).write_bytes(text.encode())
    return tmp_path / "lists"


def test_ucf101(importer, videos, ucf_lists):
    root = videos(line.split()[0] for name in UCF for line in UCF[name].splitlines() if "/" in line)
    found = by_video(importer("ucf101", ucf_lists, videos=str(root), options=LayoutOptions(split_number=2)))
    assert found["v_ApplyEyeMakeup_g01_c02.avi"] == ("ApplyEyeMakeup", "train", "v_ApplyEyeMakeup_g01", None, None)
    assert found["v_HandStandPushups_g25_c01.avi"][:3] == ("HandstandPushups", "train", "v_HandStandPushups_g25")
    assert found["v_ApplyEyeMakeup_g08_c01.avi"][1] == "test"
    assert importer.result.rows == {"mine_train": 3, "mine_test": 1}
    with pytest.raises(ImportRefusedError, match=r"trainlist01\.txt does not exist"):
        importer("ucf101", ucf_lists, videos=str(root), overwrite=True)


@pytest.mark.parametrize("number", ["1", "9", "x"])
def test_ucf101_with_another_id(importer, ucf_lists, number):
    (ucf_lists / "trainlist01.txt").write_text(f"HandstandPushups/v_HandStandPushups_g25_c01.avi {number}\n")
    write(ucf_lists / "testlist01.txt", "")
    with pytest.raises(AnnotationError, match=f"row 0: HandstandPushups has the id {number}, in classInd.txt"):
        importer("ucf101", ucf_lists)


def test_ucf101_as_mp4(importer, videos, ucf_lists):
    root = videos(line.split()[0].replace(".avi", ".mp4") for n in UCF for line in UCF[n].splitlines() if "/" in line)
    found = by_video(importer("ucf101", ucf_lists, videos=str(root), options=LayoutOptions(split_number=2)))
    assert "v_ApplyEyeMakeup_g08_c01.mp4" in found


def test_hmdb51(importer, videos, tmp_path):
    brush = ["April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "Brushing_Hair_with_Beth_brush_hair_h_cm_np1_le_goo_0.avi"]
    ride = [
        "#437_How_To_Ride_A_Bike_ride_bike_f_cm_np1_ba_med_0.avi",
        "AdvancedBikeRidin_ride_bike_f_cm_np1_fr_med_2.avi",
    ]
    root = videos([*(f"brush_hair/{name}" for name in brush), *(f"ride_bike/{name}" for name in ride)])
    lists = tmp_path / "testTrainMulti_7030_splits"
    write(lists / "brush_hair_test_split1.txt", f"{brush[0]} 1 \n{brush[1]} 2 \n")
    write(lists / "ride_bike_test_split1.txt", f"{ride[0]} 1 \n{ride[1]} 0 \n")
    write(lists / "brush_hair_test_split2.txt", f"{brush[0]} 2 \n")
    found = by_video(importer("hmdb51", lists, videos=str(root)))
    assert found == {
        brush[0]: ("brush_hair", "train", "brush_hair/April_09", None, None),
        brush[1]: ("brush_hair", "test", "brush_hair/Brushing_Hair_with_Beth", None, None),
        ride[0]: ("ride_bike", "train", "ride_bike/#437_How_To_Ride_A_Bike", None, None),
    }
    assert any(note.startswith("1 videos are in no part") for note in importer.result.notes)


KINETICS = """label,youtube_id,time_start,time_end,split
abseiling,_4YTwq0-73Y,326,336,{0}
"testifying, in court",-3B32lodo2M,59,69,{0}
abseiling,2LUWoVCW1UA,10,20,{0}
"""


def test_kinetics(importer, videos, tmp_path):
    root = videos(
        ["train/abseiling/_4YTwq0-73Y_000326_000336.mp4", "-3B32lodo2M.mkv", "val/2LUWoVCW1UA_000010_000020.mp4"]
    )
    train = write(tmp_path / "train.csv", "\n".join(KINETICS.format("train").splitlines()[:3]) + "\n")
    head, *_, last = KINETICS.format("validate").splitlines()
    val = write(tmp_path / "val.csv", f"{head}\n{last}\n")
    with pytest.raises(AnnotationError, match="split 'validate'"):
        importer("kinetics", train, val, videos=str(root))
    found = by_video(importer("kinetics", train, val, videos=str(root), use_split={"validate": "test"}))
    assert found == {
        "_4YTwq0-73Y_000326_000336.mp4": ("abseiling", "train", "_4YTwq0-73Y", None, None),
        "-3B32lodo2M.mkv": ("testifying, in court", "train", "-3B32lodo2M", 59.0, 69.0),
        "2LUWoVCW1UA_000010_000020.mp4": ("abseiling", "test", "2LUWoVCW1UA", None, None),
    }


SOMETHING = {
    "labels.json": {"Holding something": "1", "Approaching something with your camera": "0"},
    "train.json": [
        {
            "id": "78687",
            "label": "holding potato next to vicks",
            "template": "Holding [something]",
            "placeholders": ["a"],
        },
        {"id": "42326", "label": "a", "template": "Approaching [something] with your camera", "placeholders": ["tree"]},
    ],
    "validation.json": [{"id": "74225", "label": "a", "template": "Holding [something]", "placeholders": ["cube"]}],
    "test.json": [{"id": "1420"}],
}


def test_something_something(importer, videos, tmp_path):
    folder = tmp_path / "labels"
    for name, content in SOMETHING.items():
        write(folder / name, json.dumps(content))
    root = videos(f"20bn-something-something-v2/{number}.webm" for number in (78687, 42326, 74225, 1420))
    annotations = importer("something-something", folder, videos=str(root))
    assert annotations.labels.label_names == ("Approaching something with your camera", "Holding something")
    assert by_video(annotations)["74225.webm"][:2] == ("Holding something", "val")
    assert "1420.webm" not in by_video(annotations)
    write(folder / "test-answers.csv", "1420;Holding something\n")
    found = by_video(importer("something-something", folder, videos=str(root), overwrite=True))
    assert found["1420.webm"][:2] == ("Holding something", "test")


def test_mmaction2_video_lists(importer, videos, tmp_path):
    root = videos(["a b/some video.mp4", "c.mp4", "d.mp4"])
    train = write(tmp_path / "my_train_list_videos.txt", "a b/some video.mp4 1\nc.mp4 0\n")
    test = write(tmp_path / "eval_videos.txt", "d.mp4 1\n")
    names = write(tmp_path / "label_map.txt", "run\nsit down\n")
    found = by_video(importer("mmaction2", train, f"test={test}", videos=str(root), label_names=names))
    assert {name: row[:2] for name, row in found.items()} == {
        "some video.mp4": ("sit down", "train"),
        "c.mp4": ("run", "train"),
        "d.mp4": ("sit down", "test"),
    }


def test_mmaction2_ids_without_names(importer, videos, tmp_path):
    root = videos(["a.mp4", "b.mp4"])
    annotations = importer("mmaction2", write(tmp_path / "list.txt", "a.mp4 0\nb.mp4 1\n"), videos=str(root))
    assert annotations.labels.label_names == ("0", "1")
    assert not (importer.dataset_dir / "mine" / "labels.json").exists()


def test_mmaction2_several_labels(importer, videos, tmp_path):
    source = write(tmp_path / "list.txt", "test.mp4 0 3\ntest.mp4 0 2 4\n")
    with pytest.raises(AnnotationError, match=r"rows 0, 1: several labels"):
        importer("mmaction2", source, videos=str(videos(["test.mp4"])))


def test_mmaction2_frames(importer, videos, tmp_path):
    root = videos(f"{folder}/img_{n:05}.jpg" for folder in ("imgs", "more") for n in range(1, 6))
    source = write(tmp_path / "rawframe_test_list.txt", "imgs 5 1\nmore 2 3 0\n")
    annotations = importer("mmaction2-frames", f"train={source}", videos=str(root))
    whole, part = annotations.rows
    assert [Path(image).name for image in whole.video] == [f"img_{n:05}.jpg" for n in range(1, 6)]
    assert [Path(image).name for image in part.video] == [f"img_{n:05}.jpg" for n in (3, 4, 5)]
    with pytest.raises(ImportRefusedError, match="no place for the number"):
        importer("mmaction2-frames", source, options=LayoutOptions(frame_name="img.jpg"), overwrite=True)


ACTIVITYNET = {
    "version": "VERSION 1.3",
    "taxonomy": [{"parentName": "Root", "nodeName": "Dancing", "nodeId": 1, "parentId": 0}],
    "database": {
        "sJFgo9H6zNo": {
            "duration": 128.18,
            "subset": "training",
            "resolution": "854x480",
            "url": "https://www.youtube.com/watch?v=sJFgo9H6zNo",
            "annotations": [
                {"segment": [0.0, 12.08], "label": "Dancing"},
                {"segment": [20.5, 124.56], "label": "Fixing bicycle"},
            ],
        },
        "V1zhqaGFY2A": {
            "duration": 203.9,
            "subset": "validation",
            "annotations": [{"segment": [15.55, 201.87], "label": "Dancing"}],
        },
        "JDg--pjY5gg": {"duration": 67.9, "subset": "testing", "annotations": []},
    },
}


def test_activitynet(importer, videos, tmp_path):
    root = videos(["v_sJFgo9H6zNo.mp4", "val/V1zhqaGFY2A.mkv"])
    source = write(tmp_path / "activity_net.v1-3.min.json", json.dumps(ACTIVITYNET))
    annotations = importer("activitynet", source, videos=str(root))
    assert [(row.group, row.start_seconds, row.end_seconds) for row in annotations.rows] == [
        ("sJFgo9H6zNo", 0.0, 12.08),
        ("sJFgo9H6zNo", 20.5, 124.56),
        ("V1zhqaGFY2A", 15.55, 201.87),
    ]
    assert by_video(annotations)["V1zhqaGFY2A.mkv"][:2] == ("Dancing", "val")


GMDCSA = """File Name,Length (seconds),Time of Recording,Attire,Description, Classes
01.mp4,06,Day,Shirt,"Falling, then lying", Falling (SW)[3.4 to 6]:; Sitting[0 to 3.4]
02.mp4,10,Day,Shirt,Picking a book, Sitting[9.2 to 10]; Standing[2.4 to 3.6; 6.6 to 7.9; Walking[3.6 to 5.2; 7.9 to 9.2]
"""


def test_segments_in_cells(importer, videos):
    root = videos([f"Subject {n}/ADL/0{v}.mp4" for n in (1, 2) for v in (1, 2)])
    tables = [write(root / f"Subject {n}" / "ADL.csv", GMDCSA) for n in (1, 2)]
    annotations = importer("segments", *tables, videos=str(root))
    names = annotations.labels.label_names
    first = [row for row in annotations.rows if row.group == "Subject 1"]
    assert [(names[row.label], row.start_seconds, row.end_seconds) for row in first] == [
        ("Falling (SW)", 3.4, 6.0),
        ("Sitting", 0.0, 3.4),
        ("Sitting", 9.2, 10.0),
        ("Standing", 2.4, 3.6),
        ("Standing", 6.6, 7.9),
        ("Walking", 3.6, 5.2),
        ("Walking", 7.9, 9.2),
    ]


@pytest.mark.parametrize(
    ("cell", "message"),
    [("Sitting[9.7 to 3]; Standing[0 to 1]", "0 <= start < end"), ("Reading; Sitting[0 to 8]", "Reading has no times")],
)
def test_segments_that_cannot_be(importer, videos, cell, message):
    root = videos(["subject1_ADL/01.mp4"])
    table = write(root / "subject1_ADL.csv", f"File Name, Classes\n01.mp4,{cell}\n")
    with pytest.raises(AnnotationError, match=message):
        importer("segments", table)


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


def test_every_layout_is_tried_here():
    tried = Counter(word for word in Path(__file__).read_text(encoding="utf-8").split('"') if word in LAYOUTS)
    assert set(tried) == set(LAYOUTS)
