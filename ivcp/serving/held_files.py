"""A model's files as they were when it was loaded, whatever becomes of its directory while it is served.

Weights are mapped from their files: one that is written over changes the model without a word, and one that is cut ends
the process. Decoding processes read the other files again whenever one of them is replaced: those of another model
would prepare other frames. A directory that is removed or exchanged as a whole does neither.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

_WEIGHTS = frozenset({".safetensors", ".bin", ".onnx", ".data", ".xml"})
_SMALL = frozenset({".json", ".jinja", ".txt", ".model", ".tiktoken", ".py", ".yaml"})
"""What decoding processes may need of a model: settings, tokenizer, processor, code that comes with it."""


class ModelChangedError(RuntimeError):
    """A model's weights were written over while it was served: there is no right answer any more."""


class HeldFiles:
    """Copies of a model's small files, and its files of weights, held open."""

    def __init__(self, model_dir: Path, *, into: Path) -> None:
        """Copies to a new folder below `into`.

        Raises:
            OSError: the files cannot be read or copied.
        """
        self._opened = ExitStack()
        files = [path for path in sorted(model_dir.iterdir()) if path.is_file()]
        weights = [path for path in files if path.suffix in _WEIGHTS]
        self._weights = {path.name: self._opened.enter_context(path.open("rb")).fileno() for path in weights}
        self._states = self._now()
        self.directory = Path(tempfile.mkdtemp(prefix="model-", dir=into))
        for path in files:
            if path.suffix in _SMALL:
                shutil.copyfile(path, self.directory / path.name)

    @property
    def changed(self) -> str | None:
        """A file of weights that somebody has written to since; null where there is none."""
        return next((name for name, state in self._now().items() if state != self._states[name]), None)

    def release(self, *, keep_copies: bool = False) -> None:
        """Closes the files of weights, and removes the copies."""
        self._opened.close()
        self._weights = {}
        if not keep_copies:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _now(self) -> dict[str, tuple[int, int]]:
        found = {name: os.fstat(descriptor) for name, descriptor in self._weights.items()}
        return {name: (status.st_size, status.st_mtime_ns) for name, status in found.items()}
