"""A model that writes or scores: what training or export wrote, or a base model as it is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ivcp.serving.model_source import ModelSource
from ivcp.serving.settings import InferDtype
from ivcp.settings import ModelConfig, RunConfig, config_from_settings
from ivcp.stages.base_model import describe_base_model, is_base_model, load_base_directory
from ivcp.stages.loaded_model import LoadedModel

if TYPE_CHECKING:
    import torch

GREEDY = {"do_sample": False}
"""How answers are written unless settings or requests say otherwise: the same question has the same answer."""

log = logging.getLogger(__name__)


class LanguageSource(ModelSource):
    """A model directory, or the folder of a base model."""

    def __init__(
        self,
        model_uri: Path | str,
        *,
        name: str | None = None,
        version: str | None = None,
        machine: ModelConfig | None = None,
        infer_dtype: InferDtype = "auto",
        run: RunConfig | None = None,
    ) -> None:
        """As `ModelSource` says; `run` says how answers are written, and how a base model sees videos."""
        super().__init__(model_uri, name=name, version=version, machine=machine, infer_dtype=infer_dtype)
        self.run = (run or config_from_settings(GREEDY)).model_copy(update={"model": self.machine})

    def beside(self, model_uri: str, *, name: str, version: str | None) -> Self:
        """Another model that runs as this one does."""
        return type(self)(
            model_uri, name=name, version=version, machine=self.machine, infer_dtype=self.infer_dtype, run=self.run
        )

    def check(self, model_dir: Path) -> None:
        """Checks a directory that was fetched.

        Raises:
            ModelFilesError: it is neither a complete model directory nor a base model.
        """
        if not is_base_model(model_dir):
            super().check(model_dir)

    def describe(self, model_dir: Path, copies: Path) -> None:
        """Adds to `copies` of a directory's small files what decoding processes need and a base model does not say."""
        if is_base_model(model_dir):
            describe_base_model(copies, self.run)

    def read(self, model_dir: Path, *, device: str, dtype: torch.dtype | None) -> LoadedModel:
        """The model of a directory that was fetched; raises as `load` does."""
        if is_base_model(model_dir):
            return load_base_directory(model_dir, self.run, device=device, dtype=dtype)
        if self.run.video != type(self.run.video)():
            log.warning("%s sees frames as in its training: settings of frames have no effect", self.model_uri)
        return super().read(model_dir, device=device, dtype=dtype)
