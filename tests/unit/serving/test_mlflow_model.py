"""An exported directory as MLflow loads it."""

from pathlib import Path

import mlflow
import pytest

from ivcp.export.mlflow_form import add_mlflow_form, referring_model, remove_mlflow_form
from ivcp.serving.files import classify_files
from tests.models import save_tiny_classifier
from tests.videos import write_video


@pytest.fixture(scope="module")
def in_mlflow_form(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_classifier(tmp_path_factory.mktemp("mlflow-form") / "model")
    add_mlflow_form(folder)
    return folder


def test_mlflow_answers_as_we_do(in_mlflow_form: Path, tmp_path: Path) -> None:
    video = str(tmp_path / "clip.mp4")
    write_video(tmp_path / "clip.mp4", seed=0, size=32, num_frames=12)
    [(_, answer)] = classify_files(in_mlflow_form, [video])
    model = mlflow.pyfunc.load_model(str(in_mlflow_form))
    one, several = model.predict(video), model.predict([video, "missing.mp4"])
    assert one.label_name.tolist() == [answer.label_name]
    assert one.confidence[0] == pytest.approx(answer.confidence, abs=1e-6)
    assert several.video.tolist() == [video, "missing.mp4"]
    assert several.error[1].startswith("video_missing: ")
    assert model.input_example == ["clip.mp4"]
    requirements = (in_mlflow_form / "requirements.txt").read_text()
    assert "ivcp[serving]==" in requirements


def test_what_refers_to_weights_finds_them_and_refuses_others(in_mlflow_form: Path, tmp_path: Path) -> None:
    for name, text in referring_model(in_mlflow_form).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = mlflow.pyfunc.load_model(str(tmp_path))
    assert found.metadata.signature is not None
    weights = next(in_mlflow_form.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="holds other weights"):
        mlflow.pyfunc.load_model(str(tmp_path))


def test_a_model_with_another_kind_of_answer_has_no_form_of_an_earlier_one(tmp_path: Path) -> None:
    for _ in range(2):
        remove_mlflow_form(tmp_path)
        assert not (tmp_path / "MLmodel").exists()
        add_mlflow_form(tmp_path)
        assert (tmp_path / "MLmodel").is_file()
