"""What `mlflow.pyfunc.load_model` makes of an exported directory: videos in, a table of answers out."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from ivcp.records.answers import Answer, Failure
from ivcp.records.export import MODEL_REFERENCE_FILE, ModelReference
from ivcp.serving.files import FileClassifier
from ivcp.storage import is_s3
from ivcp.tracking.identity import sampled_hash
from ivcp.video.workers import available_cores

if TYPE_CHECKING:
    import pandas

_COLUMNS = ("video", "label_name", "label", "confidence", "unsure", "error")


class VideoModel:
    """An exported model as MLflow calls it; it loads at the first question."""

    def __init__(self, model_dir: str) -> None:
        """`model_dir` is a path or an s3:// URI."""
        self.model_dir = model_dir
        self._classifier: FileClassifier | None = None
        self._loading = Lock()

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pandas.DataFrame:
        """One row for each video, in their order; a video without an answer says why in `error`.

        `model_input` is a table with one column, as MLflow makes it of one path or a list of them; s3:// URIs are read
        as well.
        """
        import pandas

        videos = [str(video) for video in model_input.iloc[:, 0]]
        with self._loading:  # MLflow's server asks from several threads
            if self._classifier is None:
                self._classifier = FileClassifier(self.model_dir, num_decoders=available_cores())
        with closing(self._classifier.outcomes(videos)) as outcomes:
            return pandas.DataFrame(_rows(outcomes), columns=list(_COLUMNS))


def _load_pyfunc(path: str) -> VideoModel:
    """MLflow calls this with the folder of the weights, or of what refers to them.

    Raises:
        ValueError: the weights that are referred to are others by now.
    """
    file = Path(path) / MODEL_REFERENCE_FILE
    if not file.is_file():
        return VideoModel(path)
    reference = ModelReference.read(file)
    is_local = not is_s3(reference.model_dir)
    if is_local and sampled_hash(Path(reference.model_dir), "*.safetensors") != reference.weights:
        raise ValueError(
            f"{reference.model_dir} holds other weights than those that were logged, or none that this machine sees: "
            "export with models_uri, an s3:// prefix, so that each run's model keeps a place of its own"
        )
    return VideoModel(reference.model_dir)


def _rows(outcomes: Iterable[tuple[str, Answer | Failure]]) -> list[tuple[Any, ...]]:
    return [
        (video, found.label_name, found.label, found.confidence, found.unsure, None)
        if isinstance(found, Answer)
        else (video, None, None, None, None, f"{found.code}: {found.detail}")
        for video, found in outcomes
    ]
