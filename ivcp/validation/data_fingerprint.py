"""The fingerprint of a run's data, made without opening a video: what validation depends on besides its settings.

It is the key of the cluster's cache of results too.
"""

from __future__ import annotations

import hashlib
import itertools
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path

from ivcp import storage
from ivcp.data.labels import labels_files
from ivcp.data.media import read_media
from ivcp.data.problems import RowError
from ivcp.data.registry import DatasetInfo, data_files, read_dataset_info, read_rows
from ivcp.records import RowKind
from ivcp.settings import DataConfig, RunConfig
from ivcp.stages.registry import stage_of
from ivcp.tracking.identity import base_files_hash
from ivcp.validation.splits.kept import read_header

_CHUNK_BYTES = 2**20


def data_fingerprint(config: RunConfig) -> str:
    """Hash of the registry's entries, the annotations, the videos that they name, and the base model's files.

    Annotations count by their content; videos by size and ETag on S3, by size and time of change in a folder: a video
    that was replaced counts as changed, and one that no row names does not count. Splits that earlier runs gave count
    only where a run gave other ones (`resplit`): new rows add to them, and change the annotations.

    Raises:
        AnnotationError: the registry or an annotation file cannot be read.
    """
    digest = hashlib.sha256()
    names_by_folder: dict[str, set[str]] = {}
    rows = stage_of(config).rows
    for name in (*config.data.dataset, *config.data.eval_dataset, *config.data.test_dataset):
        info = read_dataset_info(name, config.data.dataset_dir, rows=rows)
        digest.update(info.model_dump_json().encode())
        for labels in labels_files([info], config.data.dataset_dir):
            digest.update(_hash_file(storage.local_path(labels)))
        for file in data_files(info, config.data.dataset_dir):
            digest.update(_hash_file(file))
            for video in _media(file, info, config.data, rows):
                folder, _, base = video.rpartition("/")
                names_by_folder.setdefault(folder, set()).add(base)
    for line in _versions(names_by_folder):
        digest.update(line.encode())
    digest.update((base_files_hash(config.model.model_name_or_path) or "").encode())
    if resplits := read_header(config.data).resplits:
        digest.update(f"resplits {resplits}".encode())  # what was kept of an earlier cut holds no more
    return digest.hexdigest()[:32]


def _media(file: Path, info: DatasetInfo, data: DataConfig, rows: RowKind) -> Iterator[str]:
    for row in read_rows(file):
        try:
            found = read_media(row, info, data.media_dir or data.dataset_dir, rows=rows)
        except RowError:
            continue  # validation names it
        for video in itertools.chain.from_iterable(found.values()):
            yield from (video,) if isinstance(video, str) else video


def _versions(names_by_folder: Mapping[str, set[str]]) -> Iterator[str]:
    """A line for each video, folder by folder; a folder inside another one is listed with that."""
    listed_root, listing = "", dict[str, str]()
    for folder in sorted(names_by_folder):
        if not listed_root or not f"{folder}/".startswith(f"{listed_root}/"):
            listed_root, listing = folder, storage.file_versions(folder)
        inside = folder[len(listed_root) :].strip("/")
        for name in sorted(names_by_folder[folder]):
            yield f"{folder}/{name} {listing.get(posixpath.join(inside, name), 'missing')}\n"


def _hash_file(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.digest()
