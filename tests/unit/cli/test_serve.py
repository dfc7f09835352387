"""The words of `ivcp serve` and `ivcp api`: settings of the server, and of the answers of a model that writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ivcp.cli.main import app
from tests.models import save_tiny_classifier
from tests.tiny_families import build_tiny_family


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the server would be started with."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("ivcp.serving.server.serve", lambda place, **said: calls.append({"place": place} | said))
    monkeypatch.setattr("ivcp.serving.server.set_up_logging", lambda: None)
    return calls


@pytest.mark.parametrize("command", ["serve", "api"])
def test_words_are_of_the_server_or_of_its_answers(served, tmp_path, command):
    base = build_tiny_family(tmp_path / "base", "qwen2_vl")
    words = ["num_decoders=2", "uri_hosts=a.b,c.d", "temperature=0.5", "do_sample=true", "video_num_frames=4"]
    place = ["--model-dir", str(base), "--port", "9", "--model-name", "mine", "flash_attn=sdpa", "learning_rate=1"]
    done = CliRunner().invoke(app, [command, *place, *words], catch_exceptions=False)
    (said,) = served
    assert (said["place"], said["port"], said["model_name"]) == (str(base), 9, "mine")
    assert (said["settings"].num_decoders, said["settings"].uri_hosts) == (2, ("a.b", "c.d"))
    run = said["run"]
    assert (run.generation.temperature, run.generation.do_sample, run.video.video_num_frames) == (0.5, True, 4)
    assert said["machine"].flash_attn == "sdpa"
    assert "learning_rate: no effect on a server" in done.output


def test_answers_are_the_likeliest_ones_unless_words_say_otherwise(served, tmp_path):
    base = build_tiny_family(tmp_path / "base", "qwen2_vl")
    CliRunner().invoke(app, ["api", "--model-dir", str(base)], catch_exceptions=False)
    assert not served[0]["run"].generation.do_sample


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["num_decodrs=2"], "'num_decodrs' is no setting of the server; the nearest is num_decoders"),
        (["temperatur=2"], "did you mean temperature"),
        (["temperature=0.5"], "temperature: .* is a classifier, and writes no answers"),
    ],
)
def test_words_that_mean_nothing_are_refused(served, tmp_path: Path, words, message):
    model = save_tiny_classifier(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        CliRunner().invoke(app, ["serve", "--model-dir", str(model), *words], catch_exceptions=False)
    assert served == []
