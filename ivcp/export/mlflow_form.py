"""The exported directory in MLflow's form: an `MLmodel` beside the weights, so that `mlflow.pyfunc` loads it as it is.

mlflow.pyfunc.load_model("models:/ivcp-action-classifier@champion").predict("clip.mp4")
mlflow models serve --model-uri models:/ivcp-action-classifier@champion
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from pathlib import Path

from ivcp.packages import own_version
from ivcp.records.export import MODEL_REFERENCE_FILE, ModelReference
from ivcp.storage import is_s3
from ivcp.tracking.identity import sampled_hash

_LOADER = "ivcp.serving.mlflow_model"
"""The module with `_load_pyfunc`; it is named and not imported, as MLflow does."""
_MODEL_FILE = "MLmodel"
_EXAMPLE = ["clip.mp4"]


def add_mlflow_form(export_dir: Path) -> None:
    """Writes `MLmodel`, its requirements and an example of its input beside the weights of a model directory."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "model"
        _save(written, data=None)
        for file in written.iterdir():
            shutil.copyfile(file, export_dir / file.name)


def remove_mlflow_form(export_dir: Path) -> None:
    """Removes the `MLmodel` of an earlier export from a directory whose model has another kind of answer."""
    (export_dir / _MODEL_FILE).unlink(missing_ok=True)


def referring_model(model_dir: Path | str) -> dict[str, str]:
    """A model in MLflow's form that refers to the weights of a directory or s3:// prefix: its files, by path."""
    reference = ModelReference(
        model_dir=str(model_dir) if is_s3(model_dir) else str(Path(model_dir).resolve()),
        weights=None if is_s3(model_dir) else sampled_hash(Path(model_dir), "*.safetensors"),
    )
    with tempfile.TemporaryDirectory() as folder:
        data, written = Path(folder) / "reference", Path(folder) / "model"
        data.mkdir()
        reference.write(data / MODEL_REFERENCE_FILE)
        _save(written, data=data)
        return {str(file.relative_to(written)): file.read_text() for file in written.rglob("*") if file.is_file()}


def _save(folder: Path, *, data: Path | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mlflow warns of its own type hints
        import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    outputs = Schema(
        [
            ColSpec(DataType.string, "video"),
            ColSpec(DataType.string, "label_name", required=False),
            ColSpec(DataType.long, "label", required=False),
            ColSpec(DataType.double, "confidence", required=False),
            ColSpec(DataType.boolean, "unsure", required=False),
            ColSpec(DataType.string, "error", required=False),
        ]
    )
    logging.getLogger("mlflow.models.model").setLevel(logging.ERROR)  # it cannot run the example without the model
    mlflow.pyfunc.save_model(
        path=str(folder),
        loader_module=_LOADER,
        data_path=None if data is None else str(data),
        signature=ModelSignature(inputs=Schema([ColSpec(DataType.string)]), outputs=outputs),
        input_example=_EXAMPLE,
        pip_requirements=[f"mlflow=={mlflow.__version__}", f"ivcp[serving]=={own_version()}"],
    )
