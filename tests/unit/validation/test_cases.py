"""Data sets as other people write them: each is read with the right values, or refused with file and row."""

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.records import ANNOTATIONS_FILE, Clip, Labels, read_lines
from ivcp.settings import from_flat
from ivcp.validation.validate import validate_data
from tests.videos import write_video

NUM_CLIPS = 8
QUESTION = "<video>What is done?<ACTION>"
NAMES = ("fall", "run")
COLUMNS = {"messages": "conversations", "videos": "videos"}
JSON_ENTRY = {"file_name": "rows.json", "formatting": "sharegpt", "columns": COLUMNS}
CSV_ENTRY = {"file_name": "rows.csv", "formatting": "alpaca", "columns": {"videos": "videos"}}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(NUM_CLIPS):
        write_video(folder / f"{number}.mp4", num_frames=4, size=32, seed=number)
    return folder


class Case:
    """A data set of eight rows, two to a group, whose files a test writes as somebody did."""

    def __init__(self, folder: Path, clips: Path) -> None:
        self.folder = folder
        (folder / "videos").symlink_to(clips)

    def write(self, content: bytes | str | list[Any], registry: bytes | None = None, **entry: Any) -> "Case":
        described = JSON_ENTRY | entry
        text = content if isinstance(content, bytes | str) else json.dumps(content)
        (self.folder / described["file_name"]).write_bytes(text if isinstance(text, bytes) else text.encode())
        (self.folder / "dataset_info.json").write_bytes(registry or json.dumps({"set": described}).encode())
        return self

    def read(self, **settings: Any) -> tuple[Labels, list[Clip]]:
        """What validation makes of it: the classes and the clips."""
        config = from_flat(
            {"dataset": "set", "dataset_dir": str(self.folder), "preprocessing_num_workers": 1, **settings}
            | {"near_duplicate_frames": 0, "report_thumbnails": 0, "on_duplicates": "ignore"}
        )
        output = self.folder / "validated"
        validate_data(config, output)
        return Labels.read(output / "labels.json"), list(read_lines(output / ANNOTATIONS_FILE, Clip))

    def is_read(self) -> None:
        """As the plain data set: nothing is lost or changed."""
        labels, clips = self.read()
        assert labels.label_names == NAMES
        assert [labels.label_names[clip.label] for clip in clips] == [row["action_label"] for row in rows()]
        assert [clip.video for clip in clips] == [str(self.folder / row["videos"][0]) for row in rows()]
        assert {clip.messages[0].content for clip in clips} == {QUESTION}

    def refused(self) -> str:
        """The message."""
        with pytest.raises(AnnotationError) as caught:
            self.read()
        return str(caught.value)


@pytest.fixture
def case(tmp_path: Path, clips: Path) -> Case:
    return Case(tmp_path, clips)


def rows() -> list[dict[str, Any]]:
    return [
        {
            "conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": "It runs."}],
            "videos": [f"videos/{number}.mp4"],
            "action_label": ("run", "fall")[number % 2],
            "group": f"p{number // 2}",
        }
        for number in range(NUM_CLIPS)
    ]


def changed(change: Callable[[dict[str, Any]], object], only: int | None = None) -> list[dict[str, Any]]:
    made = rows()
    for number, row in enumerate(made):
        if only is None or number == only:
            change(row)
    return made


def table(delimiter: str = ",", question: str = QUESTION, extra: str = "") -> str:
    lines = [delimiter.join((question, row["videos"][0], row["action_label"])) + extra for row in rows()]
    return "\n".join((delimiter.join(("instruction", "videos", "action_label")), *lines))


def test_the_plain_data_set(case: Case) -> None:
    case.write(rows()).is_read()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_an_encoding_that_its_first_bytes_name(case: Case, encoding: str) -> None:
    case.write(json.dumps(rows()).encode(encoding)).is_read()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_registry_and_labels_with_a_byte_order_mark(case: Case, encoding: str) -> None:
    (case.folder / "labels.json").write_bytes(json.dumps({"label_names": NAMES}).encode(encoding))
    case.write(rows(), registry=json.dumps({"set": JSON_ENTRY}).encode(encoding)).is_read()


def test_gbk(case: Case) -> None:
    content = json.dumps(changed(lambda row: row.update(action_label="跑步")), ensure_ascii=False).encode("gbk")
    message = case.write(content).refused()
    assert message.startswith(f"{case.folder / 'rows.json'}: expected text in utf-8, got the byte 0xc5 in line 1: ")
    assert "iconv -f GB18030 -t UTF-8 rows.json > rows.utf8.json" in message


def test_gbk_in_a_table(case: Case) -> None:
    message = case.write(table(question="<video>在做什么<ACTION>").encode("gbk"), **CSV_ENTRY).refused()
    assert "rows.csv: expected text in utf-8, got the byte 0xd4 in line 2: convert it to UTF-8" in message


def test_rows_in_lines_though_the_file_is_named_json(case: Case) -> None:
    case.write("\n".join(map(json.dumps, rows()))).is_read()


def test_a_list_though_the_file_is_named_jsonl(case: Case) -> None:
    case.write(json.dumps(rows(), indent=1), file_name="rows.jsonl").is_read()


def test_a_list_of_parts_as_content(case: Case) -> None:
    def as_parts(row: dict[str, Any]) -> None:
        parts = [{"type": "video"}, {"type": "text", "text": "What is done?<ACTION>"}]
        row["messages"] = [{"role": "user", "content": parts}]
        del row["conversations"]

    columns = {"messages": "messages", "videos": "videos"}
    case.write(changed(as_parts), formatting="openai", columns=columns).is_read()


def test_a_split_in_capitals(case: Case) -> None:
    case.write(changed(lambda row: row.update(split="Train"))).is_read()
    _, clips = case.write(changed(lambda row: row.update(split=" VAL " if row["group"] == "p3" else None))).read()
    assert [clip.split for clip in clips] == ["train"] * 6 + ["val"] * 2


def test_a_table_with_semicolons(case: Case) -> None:
    case.write(table(";"), **CSV_ENTRY).is_read()


def test_a_cell_of_140_000_characters(case: Case) -> None:
    question = "x" * 140_000 + QUESTION
    _, clips = case.write(table(question=question), **CSV_ENTRY).read()
    assert [clip.messages[0].content for clip in clips] == [question] * NUM_CLIPS


def test_a_label_with_a_space(case: Case) -> None:
    case.write(changed(lambda row: row.update(action_label=row["action_label"] + " "), only=0)).is_read()


def test_labels_that_differ_in_case_only(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    labels, _ = case.write(changed(lambda row: row.update(action_label="Run"), only=0)).read()
    assert labels.label_names == ("Run", "fall", "run")
    said = "class names that differ in case, spaces or Unicode form only: 'Run' and 'run'"
    assert said in caplog.text
    assert said in html.unescape((case.folder / "validated" / "report.html").read_text())


def test_a_file_uri_is_a_local_path(case: Case) -> None:
    uri = f"file://{case.folder}/videos/"
    case.write(changed(lambda row: row.update(videos=[uri + Path(row["videos"][0]).name]))).is_read()


def as_surrogate(row: dict[str, Any]) -> None:
    row["conversations"][0]["value"] = "<video>What?\ud83d<ACTION>"


ALL = "rows 0, 1, 2, 3, 4 and 3 more"


@pytest.mark.parametrize(
    ("change", "only", "entry", "where", "message"),
    [
        (as_surrogate, 3, {}, "row 3", r"'conversations' holds \ud83d in character 12, one half of a character"),
        (
            lambda row: row["conversations"][0].update(value="<video><|video_pad|>What?<ACTION>"),
            *(2, {}, "row 2", "the prompt holds <|video_pad|>, which the model reads as its own token"),
        ),
        (lambda row: row.update(split=["train"]), None, {}, ALL, "split = ['train']: expected train, val or test"),
        (
            lambda row: row.update(action_label=2**70),
            *(0, {}, "row 0", "action_label = 1180591620717411303424: no class has such an id"),
        ),
        (
            lambda row: row.update(action_label=1_700_000_000),
            *(0, {}, "row 0", "action_label = 1700000000 is an id, other rows have names"),
        ),
        (lambda row: row.update(action_label="   "), 0, {}, "row 0", "action_label is missing: expected a class id"),
        (
            lambda row: row["conversations"][1].update(value=None),
            *(0, {}, "row 0", "value of turn 1 (gpt) has no text: expected some; leave a turn out where nothing"),
        ),
        (
            lambda row: row.update(action_label=1.0),
            *(None, {}, ALL, "action_label = 1.0: expected a class id (a whole number from 0) or name; write 1"),
        ),
        (
            lambda row: row.update(videos=[row["videos"][0].replace("/", "\\")]),
            *(None, {}, ALL, r"videos: 'videos\\0.mp4' is a path of Windows: write / between folders, 'videos/0.mp4'"),
        ),
        (
            lambda row: row.update(videos=["https://example.org/" + row["videos"][0]]),
            *(None, {}, ALL, "'https://example.org/videos/0.mp4' is an address on the web: download the file and"),
        ),
        (
            lambda row: row.update(video=row.pop("videos")[0]),
            *(None, {}, ALL, "videos is missing: expected the path of a video, or a list with one; the row has video:"),
        ),
        (
            lambda row: row.update(images=["a.jpg"]),
            *(None, {"columns": COLUMNS | {"images": "images"}}, ALL, "images = ['a.jpg']: a clip is classified by"),
        ),
    ],
)
def test_one_message_with_file_and_row(
    case: Case,
    change: Callable[[dict[str, Any]], object],
    only: int | None,
    entry: dict[str, Any],
    where: str,
    message: str,
) -> None:
    found = case.write(changed(change, only), **entry).refused().splitlines()
    assert len(found) == 2
    assert found[0] == f"{1 if only is not None else NUM_CLIPS} problem(s) in the annotations:"
    assert found[1].startswith(f"  data set set ({case.folder / 'rows.json'}) {where}: ")
    assert message in found[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table(extra=",x,y"), "line 2 has 5 cells, the header 3 ('<video>What is done?<ACTION>, videos/0.mp4, run, x"),
        (table() + '\n"<video>What?<ACTION>,videos/a.mp4,run\n' * 3000, "lines 10 to 12: no line of a CSV file"),
        (table().replace("instruction", "videos"), "line 1: two columns are named videos: rename one of them"),
    ],
)
def test_one_message_with_file_and_line(case: Case, content: str, message: str) -> None:
    assert case.write(content, **CSV_ENTRY).refused().startswith(f"{case.folder / 'rows.csv'} {message}")


def test_a_line_that_is_nested_too_deeply(case: Case) -> None:
    lines = [json.dumps(row) for row in rows()]
    lines[4] = '{"a": ' + "[" * 100_000
    message = case.write("\n".join(lines), file_name="rows.jsonl").refused()
    assert message.startswith(f"{case.folder / 'rows.jsonl'} line 5 is nested too deeply")
    message = case.write(f"[{','.join(lines)}]").refused()
    assert message.startswith(f"{case.folder / 'rows.json'} row 4 is nested too deeply")


def test_an_id_far_beyond_the_rows(case: Case) -> None:
    made = rows()
    for number, row in enumerate(made):
        row["action_label"] = number % 2
    made[5]["action_label"] = 1_700_000_000
    found = case.write(made).refused()
    assert "rows.json) row 5: action_label = 1700000000 is no class: ids count from 0 and every class needs a" in found


def test_ids_that_count_from_one(case: Case) -> None:
    made = rows()
    for number, row in enumerate(made):
        row["action_label"] = number % 2 + 1
    expected = "class ids count from 0, and these seem to count from 1: no row has 0, and the largest of the 2 classes"
    assert expected in case.write(made).refused()
    (case.folder / "labels.json").write_text(json.dumps({"label_names": NAMES}))
    assert f"data set set: {expected}" in case.refused()
