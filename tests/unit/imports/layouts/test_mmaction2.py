"""MMAction2's lists, of videos and of frames."""

from pathlib import Path

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.imports.listing import ImportRefusedError, LayoutOptions
from tests.unit.imports.layout_files import by_video, write


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


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a 0 1", r"row 0: 0 frames: expected 1 to 10000000"),
        ("a 1700000000 1", r"row 0: 1700000000 frames: expected 1 to 10000000"),
        ("a x 1", r"row 0: expected <folder> \[<offset>\] <number of frames> <label>"),
        (f"a {'9' * 5000} 1", r"row 0: expected <folder> \[<offset>\] <number of frames> <label>"),
    ],
)
def test_mmaction2_numbers_of_frames_that_are_none(importer, videos, tmp_path, line, message):
    lists = write(tmp_path / "list.txt", f"{line}\n")
    with pytest.raises(AnnotationError, match=message):
        importer("mmaction2-frames", lists, videos=str(videos(["a.mp4"])))
