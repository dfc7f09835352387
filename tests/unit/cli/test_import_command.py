import pytest
from typer.testing import CliRunner

from ivcp.cli.main import app
from ivcp.imports.layouts import LAYOUTS
from ivcp.imports.listing import ImportRefusedError


def ivcp(*words):
    return CliRunner().invoke(app, ["import", *map(str, words)], catch_exceptions=False)


def test_the_command_names_every_layout():
    shown = ivcp("--help").stdout

    assert [name for name in LAYOUTS if name not in shown] == []
    with pytest.raises(ImportRefusedError, match="layout 'mine': expected one of folders, csv"):
        ivcp("mine", "a.csv", "--name", "a")


def test_what_was_written_and_what_comes_next(tmp_path, videos):
    root = videos(["a.mp4", "b.mp4", "c.mp4"])
    (root / "rows.csv").write_text(
        "file,label,split\na.mp4,run,train\nb.mp4,sit,train\nc.mp4,run,validation\nd.mp4,run,\n"
    )
    words = ("csv", root / "rows.csv", "--name", "mine", "--dataset-dir", tmp_path / "data", "--column", "path=file")
    shown = ivcp(*words, "--skip-missing", "--action-token", "<ACT>", "--use-split", "validation=test")
    lines = shown.stdout.splitlines()
    assert shown.exit_code == 0
    assert lines[0] == f"3 rows, 2 classes, 1 rows left out, in {tmp_path / 'data' / 'mine'}"
    settings = f"dataset=mine_train test_dataset=mine_test dataset_dir={tmp_path / 'data'} 'action_token=<ACT>'"
    assert lines[-1] == f"next: ivcp validate {settings}"


def test_both_ways_with_missing_videos_at_once(tmp_path):
    with pytest.raises(ImportRefusedError, match="say one of them"):
        ivcp("csv", tmp_path / "a.csv", "--name", "a", "--allow-missing", "--skip-missing")
