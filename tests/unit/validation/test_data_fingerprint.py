import os
import shutil

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.validation.data_fingerprint import data_fingerprint
from tests.data_sets import sharegpt_row


@pytest.fixture
def files(data_set):
    """Two videos in a folder, a third elsewhere, and a file that no row names."""
    folder = data_set.folder
    for name in ("clips/a.mp4", "clips/deep/b.mp4", "clips/unused.mp4", "elsewhere/c.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    rows = [sharegpt_row(name, "run") for name in ("clips/a.mp4", "clips/deep/b.mp4", str(folder / "elsewhere/c.mp4"))]
    return data_set.add("actions", rows)


def test_it_stays_what_it_is_and_other_files_do_not_count(files):
    first = data_fingerprint(files.config())
    (files.folder / "clips/unused.mp4").write_bytes(b"other")
    files.add("another", [sharegpt_row("x.mp4", "sit")])

    assert data_fingerprint(files.config()) == first
    assert data_fingerprint(files.config(learning_rate=0.1)) == first


def test_only_splits_that_were_given_anew_count(files):
    first, kept = data_fingerprint(files.config()), files.folder / "group_splits.jsonl"
    kept.write_text('{"format_version": 1, "resplits": 0}\n{"group": "a", "split": "train"}\n')
    assert data_fingerprint(files.config()) == first
    kept.write_text('{"format_version": 1, "resplits": 1}\n{"group": "a", "split": "test"}\n')
    assert data_fingerprint(files.config()) != first


@pytest.mark.parametrize("name", ["clips/a.mp4", "clips/deep/b.mp4", "elsewhere/c.mp4"])
def test_a_video_that_is_replaced_or_missing_counts(files, name):
    first = data_fingerprint(files.config())
    path = files.folder / name
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(1, 1))
    second = data_fingerprint(files.config())
    path.unlink()

    assert len({first, second, data_fingerprint(files.config())}) == 3


def test_annotations_and_the_registry_count(files):
    seen = {data_fingerprint(files.config())}
    files.add("actions", [sharegpt_row("clips/a.mp4", "sit")])
    seen.add(data_fingerprint(files.config()))
    files.add("actions", [sharegpt_row("clips/a.mp4", "sit")], num_samples=1)
    seen.add(data_fingerprint(files.config()))
    files.add("more", [sharegpt_row("clips/a.mp4", "sit")])
    seen.add(data_fingerprint(files.config(test_dataset="more")))

    assert len(seen) == 4


def test_labels_count_whether_the_registry_names_them_or_not(files):
    seen = {data_fingerprint(files.config())}
    for name in ("labels.json", "classes.json"):
        (files.folder / name).write_text('{"label_names": ["run", "sit"]}', encoding="utf-16")
        files.add("actions", [sharegpt_row("clips/a.mp4", "run")], labels="classes.json" if "classes" in name else None)
        seen.add(data_fingerprint(files.config()))
        (files.folder / name).write_text('{"label_names": ["sit", "run"]}', encoding="utf-8-sig")
        seen.add(data_fingerprint(files.config()))

    assert len(seen) == 5


def test_rows_without_a_video_are_validations_business(files):
    files.add("actions", [sharegpt_row("clips/a.mp4", "sit"), {"conversations": []}])
    assert data_fingerprint(files.config())
    files.add("actions", [sharegpt_row(path, "sit") for path in ("https://x.org/a.mp4", "C:\\a.mp4", "~/a.mp4")])
    assert data_fingerprint(files.config())


def test_a_base_models_files_count_and_not_where_they_lie(files, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    first = data_fingerprint(files.config(model_name_or_path=str(model)))
    shutil.copytree(model, tmp_path / "copy")
    assert data_fingerprint(files.config(model_name_or_path=str(tmp_path / "copy"))) == first
    (model / "config.json").write_text("[]")

    assert data_fingerprint(files.config(model_name_or_path=str(model))) != first


def test_an_unknown_data_set_is_named(files):
    with pytest.raises(AnnotationError, match="did you mean actions"):
        data_fingerprint(files.config(dataset="action"))
