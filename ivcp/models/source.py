"""The one door to a model that is named by a setting: to transformers it is a folder here, or an id of the hub.

    a folder, an id of the hub           as it is
    s3://bucket/prefix                   its objects, in the download cache of `ivcp.storage`
    models:/name@alias, models:/name/3   what that version of MLflow's registry points to: any of these
    mlflow-artifacts:/…, runs:/…         files that MLflow hands out, in the same cache

Of several processes one downloads, and the others wait; a folder in the cache is whole or not there, and stays while a
process uses it. What changed at its source has another folder.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ivcp import storage
from ivcp.models.base_files import check_weights
from ivcp.settings import ModelConfig, RunConfig
from ivcp.settings.places import is_remote_model
from ivcp.tracking import tracking_uri
from ivcp.tracking.artifacts import artifact_files, download_artifact_files, registered_source

log = logging.getLogger(__name__)

_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".npz"}
_LENGTH_BYTES, _LONGEST_HEADER, _END_BYTES = 8, 100_000_000, 2**16
"""A safetensors file begins with the length of its header; a PyTorch one ends with its table of contents."""


def local_model(name: str | Path, *, with_weights: bool = True) -> str:
    """What transformers is given for `name`: a folder with all its files, or without those of weights; or a hub's id.

    Raises:
        FileNotFoundError: there is nothing at that address.
        PermissionError, ConnectionError: S3 refuses, or does not answer.
        RegistryError: MLflow does not know it, or does not answer.
    """
    if not is_remote_model(str(name)):
        return str(name)
    source = resolved_source(str(name))
    if storage.is_s3(source):
        return str(storage.local_path(source, only=None if with_weights else is_small))
    if not is_remote_model(source):
        return _folder_of_version(str(name), source)
    files = artifact_files(source, tracking_uri(RunConfig()))
    chosen = {file: size for file, size in files.items() if with_weights or is_small(file)}
    return str(_artifacts(source, chosen))


def resolved_source(name: str, config: RunConfig | None = None) -> str:
    """Where the files lie that `name` means: a version of MLflow's registry becomes what it points to now.

    The registry is that of `config`, by default the environment's.
    """
    if not name.startswith("models:/"):
        return name
    version, source = registered_source(name, tracking_uri(config or RunConfig()))
    log.info("%s is version %d: %s", name, version, source)
    return source


def pinned(config: RunConfig) -> RunConfig:
    """`config` with what versions of the registry point to now, so that an alias that moves changes no run under way.

    Raises:
        RegistryError: MLflow does not know one, or does not answer.
    """
    model, method = config.model, config.method
    if base := model.model_name_or_path:
        model = model.model_copy(update={"model_name_or_path": resolved_source(base, config)})
    if adapter := method.adapter_name_or_path:
        method = method.model_copy(update={"adapter_name_or_path": resolved_source(adapter, config)})
    return config.model_copy(update={"model": model, "method": method})


def is_small(file: str) -> bool:
    """Whether a model's file is read without its weights: configuration, tokenizer, processor, code."""
    return PurePosixPath(file).suffix not in _WEIGHTS


def weight_bytes(model: ModelConfig) -> int | None:
    """Bytes of the weights in a folder or on S3; null where they are not listed: a hub, or MLflow's own files."""
    name = model.model_name_or_path
    if name is None or not (storage.is_s3(name) or Path(name).is_dir()):
        return None
    sizes = [size for file, size in storage.file_sizes(name).items() if "/" not in file and not is_small(file)]
    return sum(sizes) or None


def check_remote_weights(name: str) -> None:
    """Checks the weights of a model on S3, by their names, sizes and headers: none is downloaded.

    Raises:
        BaseFilesError: names every file that is missing or damaged.
    """
    source = resolved_source(name)
    if storage.is_s3(source):
        with _outline(source) as folder:
            check_weights(folder, called=name)


@contextmanager
def _outline(uri: str) -> Iterator[Path]:
    """A folder with the small files at `uri`, and of each file of weights its size, its header and its end."""
    with tempfile.TemporaryDirectory(prefix="ivcp-outline-") as folder:
        for file, size in storage.file_sizes(uri).items():
            if "/" not in file and (not is_small(file) or file.endswith(".index.json")):
                _draw(storage.join(uri, file), size, Path(folder) / file)
        yield Path(folder)


def _draw(uri: str, size: int, path: Path) -> None:
    """A sparse file with what `base_files` looks at."""
    start, end = 0, size
    if uri.endswith(".safetensors") and size:
        header = int.from_bytes(storage.read_part(uri, 0, _LENGTH_BYTES), "little")
        end = min(size, _LENGTH_BYTES + min(header, _LONGEST_HEADER))
    elif not is_small(uri):
        start = max(0, size - _END_BYTES)
    with path.open("wb") as file:
        file.seek(start)
        file.write(storage.read_part(uri, start, end) if end > start else b"")
        file.truncate(size)


def _folder_of_version(name: str, source: str) -> str:
    folder = Path(source)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{name} points to {source}, which is no folder of this machine: register a copy that every step reaches "
            "(models_uri: s3://bucket/models)"
        )
    return str(folder)


def _artifacts(source: str, files: dict[str, int]) -> Path:
    if not files:
        raise FileNotFoundError(f"{source}: MLflow lists no file there")
    uri = tracking_uri(RunConfig())
    identity = "\n".join([uri, source, *(f"{file} {size}" for file, size in sorted(files.items()))])
    folder = storage.cached(
        identity, sum(files.values()), lambda staging: download_artifact_files(source, uri, files, staging)
    )
    return folder
