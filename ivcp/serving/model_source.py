"""Where a model comes from and what it is called: `load()` makes it ready."""

from __future__ import annotations

import logging
import posixpath
import time
from pathlib import Path
from typing import Self

import torch

from ivcp import storage
from ivcp.records.answers import ModelIdentity
from ivcp.serving.decoding import ModelFiles
from ivcp.serving.settings import InferDtype
from ivcp.settings import ModelConfig
from ivcp.stages.directory import check_complete, load_directory
from ivcp.stages.loaded_model import LoadedModel

log = logging.getLogger(__name__)

_DTYPES: dict[InferDtype, torch.dtype | None] = {
    "auto": None,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
}


class NotReadyError(RuntimeError):
    """A prediction was asked for before the model was loaded."""


class ModelSource:
    """One model directory: `load()` once, then `model` is there."""

    def __init__(
        self,
        model_uri: Path | str,
        *,
        name: str | None = None,
        version: str | None = None,
        machine: ModelConfig | None = None,
        infer_dtype: InferDtype = "auto",
    ) -> None:
        """`model_uri` is a path or an s3:// URI of a model directory; `machine` says how it runs here.

        `infer_dtype` is what PyTorch computes in, `auto` the precision of the training.
        """
        self.model_uri, self.infer_dtype = model_uri, infer_dtype
        self.machine = machine or ModelConfig()
        self.name, self.version = name or posixpath.basename(str(model_uri).rstrip("/")), version
        self._model: LoadedModel | None = None

    def beside(self, model_uri: str, *, name: str, version: str | None) -> Self:
        """Another model that runs as this one does."""
        return type(self)(model_uri, name=name, version=version, machine=self.machine, infer_dtype=self.infer_dtype)

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        return self._model is not None

    @property
    def model(self) -> LoadedModel:
        """The loaded model.

        Raises:
            NotReadyError: it is not loaded yet.
        """
        if self._model is None:
            raise NotReadyError(f"{self.model_uri} is not loaded yet: ask /readyz first")
        return self._model

    def fetch(self) -> Path:
        """The model directory on this machine; from S3 it is downloaded into the cache, where it may be already.

        Raises:
            FileNotFoundError, PermissionError, ConnectionError: as `ivcp.storage.local_path` says.
        """
        started = time.monotonic()
        model_dir = storage.local_path(self.model_uri)
        if storage.is_s3(self.model_uri):
            log.info("%s is here after %.1f s", self.model_uri, time.monotonic() - started)
        return model_dir

    def check(self, model_dir: Path) -> None:
        """Checks a directory that was fetched.

        Raises:
            ModelFilesError: files are missing or damaged.
        """
        check_complete(model_dir)

    def describe(self, model_dir: Path, copies: Path) -> None:
        """Adds to `copies` of a directory's small files what decoding processes need and the directory lacks."""
        return None

    def load(self) -> None:
        """Loads the model, which is downloaded first where it lies on S3.

        Raises:
            ModelFilesError: the directory is no complete, trained model.
            FileNotFoundError, PermissionError, ConnectionError: as `fetch` says.
        """
        model_dir, started = self.fetch(), time.monotonic()
        model = self.read(
            model_dir, device="cuda" if torch.cuda.is_available() else "cpu", dtype=_DTYPES[self.infer_dtype]
        )
        if model.graph and self.infer_dtype != "auto":
            log.warning("infer_dtype = %s means nothing for a graph: it is %s", self.infer_dtype, model.precision)
        self._model = model
        log.info("loaded %s in %.1f s, %s", self.model_uri, time.monotonic() - started, model.precision)

    def read(self, model_dir: Path, *, device: str, dtype: torch.dtype | None) -> LoadedModel:
        """The model of a directory that was fetched; raises as `load` does."""
        return load_directory(model_dir, machine=self.machine, device=device, dtype=dtype)

    @property
    def files(self) -> ModelFiles:
        """What a worker process needs to read clips for it."""
        return ModelFiles(self.model.directory, self.machine.trust_remote_code)

    @property
    def identity(self) -> ModelIdentity:
        """Which model it is.

        Raises:
            NotReadyError: it is not loaded yet.
        """
        info = self.model.info
        return ModelIdentity(
            name=self.name,
            version=self.version,
            trained_steps=info.trained_steps,
            data_fingerprint=info.data_fingerprint,
            precision=self.model.precision,
        )
