import json
from pathlib import Path

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.imports.listing import ImportRefusedError, LayoutOptions
from ivcp.records import Labels


def table(tmp_path: Path, *rows: str, header: str = "path,label,start,end,group,split") -> Path:
    file = tmp_path / "rows.csv"
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return file


@pytest.fixture
def three(videos):
    return str(videos(["a.mp4", "b.mp4", "c.mp4"]))


GOOD = ("a.mp4,run", "b.mp4,sit", "c.mp4,run")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("a.mp4,", "b.mp4,sit", "c.mp4,run"), "row 0: label is missing: expected a class id or name"),
        ((*GOOD, "a.mp4,run"), "row 3: a clip that is listed before, with the same label"),
        ((*GOOD, "a.mp4,sit"), "row 3: a clip that is listed before, there as run"),
        ((*GOOD, "a.mp4,run,5,2"), r"row 3: start = 5.0, end = 2.0: expected 0 <= start < end"),
        ((*GOOD, "a.mp4,run,-1,2"), "expected 0 <= start < end"),
        ((*GOOD, "a.mp4,run,0,inf"), "end = 'inf': expected seconds, or h:mm:ss"),
        ((*GOOD, "a.mp4,run,soon,2"), "start = 'soon': expected seconds, or h:mm:ss"),
        ((*GOOD, "a.mp4,run,1,2,p,holdout"), "split 'holdout': expected train"),
        ((*GOOD, "a.mp4,nan"), "row 3: label is missing"),
        (("a.mp4,1.0", "b.mp4,2.0", "c.mp4,1.0"), "rows 0, 1, 2: label = '1.0': expected a class id without a decimal"),
        ((*GOOD, "a.mp4,-1"), "row 3: label = -1: class ids count from 0"),
        ((*GOOD, "a.mp4"), r"row 3: line 5 has 1 cell\(s\), the header 6"),
    ],
)
def test_a_wrong_row_is_named_and_nothing_is_written(importer, tmp_path, three, rows, message):
    with pytest.raises(AnnotationError, match=message) as refused:
        importer("csv", table(tmp_path, *rows), videos=three)
    assert "--skip-bad-rows" in str(refused.value)
    assert not importer.dataset_dir.exists()


def test_wrong_rows_are_left_out_when_asked(importer, tmp_path, three):
    annotations = importer("csv", table(tmp_path, *GOOD, "a.mp4,sit"), videos=three, skip_bad_rows=True)
    assert len(annotations.rows) == 3
    assert any("there as run" in note for note in importer.result.notes)


def test_a_label_that_is_no_class(importer, tmp_path, three):
    names = tmp_path / "names.txt"
    names.write_text("runs\nsit\n")
    with pytest.raises(AnnotationError, match="label 'run' is no class; the nearest is 'runs'"):
        importer("csv", table(tmp_path, *GOOD), videos=three, label_names=names)


def test_the_columns_that_came_are_named(importer, tmp_path, three):
    with pytest.raises(
        ImportRefusedError, match=r"expected the column\(s\) path; it has file, label: .*--column path=…"
    ):
        importer("csv", table(tmp_path, "a.mp4,run", header="file,label"), videos=three)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_as_spreadsheets_write_it(importer, tmp_path, three, encoding):
    file = tmp_path / "rows.csv"
    file.write_text("\r\n".join(["path;label", *(row.replace(",", ";") for row in GOOD)]), encoding=encoding)
    assert len(importer("csv", file, videos=three).rows) == 3


def test_a_delimiter_that_helps_is_named(importer, tmp_path, three):
    file = table(tmp_path, *(row.replace(",", " ") for row in GOOD), header="path label")
    with pytest.raises(ImportRefusedError, match="its header is one column, 'path label': say --delimiter ' '"):
        importer("csv", file, videos=three)
    assert len(importer("csv", file, videos=three, options=LayoutOptions(delimiter=" ")).rows) == 3
    file = table(tmp_path, *(row.replace(",", ";") for row in GOOD), header="path;label")
    with pytest.raises(ImportRefusedError, match="its header is one column, 'path;label': say --delimiter ';'"):
        importer("csv", file, videos=three, options=LayoutOptions(delimiter="tab"), overwrite=True)


@pytest.mark.parametrize("encoding", ["cp1252", "gb18030", "utf-16-le"])
def test_a_table_in_an_encoding_that_is_named(importer, tmp_path, three, encoding):
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(["path;label", "a.mp4;é", "b.mp4;à", "c.mp4;é"]), encoding=encoding)
    annotations = importer("csv", file, videos=three, options=LayoutOptions(encoding=encoding))
    assert annotations.labels.label_names == ("à", "é")


def test_absent_videos_are_one_sentence(importer, tmp_path, videos):
    root = str(videos(["here.mp4"]))
    file = table(tmp_path, "here.mp4,sit", *(f"{n}.mp4,run" for n in range(2000)))
    with pytest.raises(
        ImportRefusedError, match=r"2,000 of 2,001 listed videos are not in .*it has 1 videos"
    ) as refused:
        importer("csv", file, videos=root)
    assert len(str(refused.value)) < 600
    assert not importer.dataset_dir.exists()
    assert len(importer("csv", file, videos=root, missing="keep").rows) == 2001
    assert importer.result.num_missing == 2000
    file = table(tmp_path, "here.mp4,sit", "gone.mp4,run", "../videos/here.mp4,run")
    with pytest.raises(ImportRefusedError, match="expected at least two classes"):
        importer("csv", table(tmp_path, "here.mp4,sit"), videos=root, missing="skip", overwrite=True)


def test_rows_with_absent_videos_are_left_out_when_asked(importer, tmp_path, three):
    assert len(importer("csv", table(tmp_path, *GOOD, "gone.mp4,run"), videos=three, missing="skip").rows) == 3


def test_other_entries_stay_and_a_name_is_taken_once(importer, tmp_path, three):
    importer.dataset_dir.mkdir()
    other = {"theirs": {"file_name": "x.json", "ms_hub_url": "a/b"}}
    (importer.dataset_dir / "dataset_info.json").write_text(json.dumps(other))
    importer("csv", table(tmp_path, *GOOD), videos=three)
    assert importer.registry["theirs"] == other["theirs"]
    with pytest.raises(ImportRefusedError, match=r"has mine already: .*--overwrite"):
        importer("csv", table(tmp_path, *GOOD), videos=three)
    splits = ("a.mp4,run,,,,train", "b.mp4,sit,,,,train", "c.mp4,run,,,,test")
    importer("csv", table(tmp_path, *splits), videos=three, overwrite=True)
    assert list(importer.registry) == ["theirs", "mine_train", "mine_test"]
    assert Labels.read(importer.dataset_dir / "mine" / "labels.json").label_names == ("run", "sit")


def test_videos_below_the_data_set_are_written_relative(importer, tmp_path, three):
    importer.dataset_dir = tmp_path
    assert importer("csv", table(tmp_path, *GOOD), videos=three).rows[0].video == str(tmp_path / "videos" / "a.mp4")
    assert importer.rows()[0]["videos"] == ["videos/a.mp4"]


def test_relative_paths_for_media_dir(importer, tmp_path, three):
    importer.write("csv", table(tmp_path, *GOOD), videos=three, relative=True)
    assert importer.rows()[0]["videos"] == ["a.mp4"]
    assert importer.read(media_dir=importer.result.media_dir).rows[0].video == f"{three}/a.mp4"


def test_the_same_import_writes_the_same_bytes(importer, tmp_path, three):
    written = []
    for seed in (1, 1, 2):
        importer("csv", table(tmp_path, *GOOD), videos=three, seed=seed, overwrite=True)
        written.append((importer.dataset_dir / "mine" / "annotations.json").read_bytes())
    assert written[0] == written[1] != written[2]


def test_an_option_that_means_nothing_here_is_refused(importer, tmp_path, three):
    with pytest.raises(
        ImportRefusedError, match="--split-number means nothing for layout csv: it is for ucf101, hmdb51"
    ):
        importer("csv", table(tmp_path, *GOOD), videos=three, options=LayoutOptions(split_number=1))


@pytest.mark.parametrize("name", ["", "a/b", "a,b", "..", "a b"])
def test_names_that_are_none(importer, tmp_path, three, name):
    with pytest.raises(ImportRefusedError, match="expected letters, digits"):
        importer.write("csv", table(tmp_path, *GOOD), videos=three, name=name)


def test_ids_that_count_from_one_are_refused(importer, tmp_path, three):
    ids = table(tmp_path, "a.mp4,1", "b.mp4,2", "c.mp4,1")
    names = tmp_path / "names.txt"
    names.write_text("run\nsit\n")
    with pytest.raises(ImportRefusedError, match=r"rows.csv: class ids count from 0, and these seem to count from 1"):
        importer("csv", ids, videos=three, label_names=names)
    names.write_text("1 run\n2 sit\n3 walk\n")
    with pytest.raises(ImportRefusedError, match=r"the ids in .*names.txt count from 1, and no row has the id 0"):
        importer("csv", ids, videos=three, label_names=names)
    from_zero = table(tmp_path, "a.mp4,0", "b.mp4,2", "c.mp4,1")
    annotations = importer("csv", from_zero, videos=three, label_names=names)
    assert [annotations.labels.label_names[row.label] for row in annotations.rows] == ["run", "walk", "sit"]


def test_names_that_are_nearly_the_same_are_noted(importer, tmp_path, three):
    importer("csv", table(tmp_path, "a.mp4,run", "b.mp4,Run", "c.mp4,run "), videos=three)
    assert importer.result.num_classes == 2
    assert any("differ in case, spaces or Unicode form only: 'Run' and 'run'" in note for note in importer.result.notes)


def test_paths_that_are_none(importer, tmp_path, three):
    rows = ("https://x.org/a.mp4,run", "C:/b.mp4,sit", f"file://{three}/c.mp4,run", "a.mp4,sit")
    with pytest.raises(AnnotationError) as caught:
        importer("csv", table(tmp_path, *rows), videos=three)
    assert "row 0: 'https://x.org/a.mp4' is an address on the web: download the file" in str(caught.value)
    assert "row 1: 'C:/b.mp4' is a file of a Windows machine" in str(caught.value)
    annotations = importer("csv", table(tmp_path, *rows), videos=three, skip_bad_rows=True)
    assert [row.video for row in annotations.rows] == [f"{three}/c.mp4", f"{three}/a.mp4"]


def test_the_users_folder_and_file_uris(importer, tmp_path, three, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    rows = table(tmp_path, *GOOD)
    annotations = importer("csv", f"train=~/{rows.name}", videos=f"file://{three}")
    assert [row.video for row in annotations.rows] == [f"{three}/{name}.mp4" for name in "abc"]
    with pytest.raises(ImportRefusedError, match=r"'https://x.org/videos' is an address on the web"):
        importer("csv", rows, videos="https://x.org/videos", overwrite=True)
