"""`ivcp predict` with a model directory: answers are the predictor's, decoding and batches the server's."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ivcp.cli.main import app
from ivcp.data.prompts import PromptError
from ivcp.models.backbone_files import ModelFilesError
from ivcp.records.answers import Answer, Failure
from ivcp.serving.files import classify_files
from ivcp.serving.predictor import Predictor
from tests.models import save_tiny_classifier
from tests.videos import write_video


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_classifier(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good videos of unlike sizes, a text and an empty file."""
    made = tmp_path_factory.mktemp("videos")
    for number in range(5):
        write_video(made / f"clip-{number}.mp4", seed=number, size=32 + 32 * (number % 2), num_frames=12 + number)
    (made / "text.mp4").write_text("this is a text")
    (made / "empty.mp4").touch()
    return made


def test_many_are_answered_as_each_alone(model_dir: Path, folder: Path):
    videos = [str(folder / f"clip-{number}.mp4") for number in range(5)]
    together = list(classify_files(model_dir, videos))
    predictor = Predictor(model_dir)
    predictor.load()
    alone = [predictor.predict(video) for video in videos]

    assert [video for video, _ in together] == videos
    for (_, answer), expected in zip(together, alone, strict=True):
        assert isinstance(answer, Answer)
        assert answer.logits == pytest.approx(expected.logits, abs=1e-5)
        assert answer.frame_seconds == expected.frame_seconds


def test_each_bad_video_is_its_own_failure(model_dir: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    words = ("clip-0.mp4", "text.mp4", "empty.mp4", "gone.mp4", "clip-1.mp4")
    videos = [*(str(folder / word) for word in words), "s3://bucket/clip.mp4"]
    outcomes = dict(classify_files(model_dir, videos))

    codes = [outcome.code if isinstance(outcome, Failure) else "answer" for outcome in outcomes.values()]
    expected = ["answer", "video_not_a_video", "video_empty", "video_missing", "answer", "uri_failed"]
    assert codes == expected


def test_the_command_asks_what_it_is_told(model_dir: Path, folder: Path):
    words = ["predict", "--model-dir", str(model_dir), "--json", str(folder / "clip-[01].mp4")]
    own = CliRunner().invoke(app, words)
    words += ["--prompt", "Is it a cat?", "--top-k", "2", "--start", "0.5", "--end", "1.25"]
    asked = CliRunner().invoke(app, words)

    assert (own.exit_code, asked.exit_code) == (0, 0), own.output + asked.output
    first, second = ([json.loads(line)["answer"] for line in done.stdout.splitlines()] for done in (own, asked))
    assert [len(answer["top"]) for answer in first + second] == [3, 3, 2, 2]
    assert min(second[0]["frame_seconds"]) == 0.5
    assert max(second[0]["frame_seconds"]) < 1.25
    assert first[0]["logits"] != second[0]["logits"]


def test_what_is_wrong_with_all_of_them_is_said_before_the_first(model_dir: Path, folder: Path, tmp_path: Path):
    video = str(folder / "clip-0.mp4")
    with pytest.raises(PromptError, match="<ACTION> stands 2 times"):
        list(classify_files(model_dir, [video], prompt="<ACTION> and <ACTION>"))
    with pytest.raises(ModelFilesError, match="is no complete adapter or model directory"):
        list(classify_files(tmp_path, [video]))


def test_whoever_stops_early_waits_for_nothing(model_dir: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    computed = []
    logits = Predictor.logits

    def noted(self, samples):
        computed.extend(sample.sample_id for sample in samples)
        return logits(self, samples)

    monkeypatch.setattr(Predictor, "logits", noted)
    outcomes = classify_files(model_dir, [str(folder / f"clip-{number % 5}.mp4") for number in range(200)])
    next(outcomes)
    outcomes.close()
    assert 0 < len(computed) < 100


def test_ctrl_c_ends_all_processes_and_keeps_what_was_written(model_dir: Path, folder: Path, tmp_path: Path):
    """The terminal sends it to the decoding processes too."""
    for number in range(300):
        (tmp_path / f"{number:03}.mp4").symlink_to(folder / "clip-0.mp4")
    words = [Path(sys.executable).parent / "ivcp", "predict", "--model-dir", model_dir, "--json", tmp_path]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes, start_new_session=True) as process:
        begun = [process.stdout.readline() for _ in range(3)]
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.stdout.read(), process.stderr.read()  # with what readline has read ahead

    assert process.returncode == 130, stderr
    videos = [json.loads(line)["video"] for line in [*begun, *stdout.splitlines()]]
    assert videos == [f"{tmp_path}/{number:03}.mp4" for number in range(len(videos))]
    assert 3 <= len(videos) < 300
    assert f"interrupted after {len(videos)} of 300 videos" in stderr
    assert "Traceback" not in stderr
    for _ in range(600):  # the server that they are forked from sees that nobody needs it
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("decoding processes are left")
