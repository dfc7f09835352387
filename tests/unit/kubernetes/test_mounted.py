import os

from ivcp.kubernetes.mounted import read_mounted
from ivcp.tracking import steps


def test_files_become_variables_and_what_is_set_stays(tmp_path, monkeypatch):
    """As Kubernetes mounts a secret: its files are links into a dated folder. A missing one is an empty folder."""
    for folder, key, value in (("ivcp-s3", "AWS_REGION", "eu-1\n"), ("ivcp-mlflow", "MLFLOW_TRACKING_URI", "http://m")):
        dated = tmp_path / folder / "..2026_11_29"
        dated.mkdir(parents=True)
        (dated / key).write_text(value)
        (tmp_path / folder / "..data").symlink_to(dated.name)
        (tmp_path / folder / key).symlink_to(f"..data/{key}")
    (tmp_path / "ivcp-hub").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://of-the-pod")
    monkeypatch.setenv("AWS_REGION", "")
    monkeypatch.delenv("AWS_REGION")
    read_mounted(tmp_path)

    assert (os.environ["AWS_REGION"], os.environ["MLFLOW_TRACKING_URI"]) == ("eu-1", "http://of-the-pod")


def test_each_step_reads_them(monkeypatch):
    read = []
    monkeypatch.setattr(steps, "read_mounted", lambda: read.append(True))
    with steps.recorded_step("anything"):
        assert read == [True]
