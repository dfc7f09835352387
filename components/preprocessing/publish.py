"""Where prepared clips lie: a folder that is complete or absent, and found again by its fingerprint."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components import storage
from components.artifacts import INDEX_FILE, PreparedIndex, writable_folder
from components.shards import ShardError, find_shard

log = logging.getLogger(__name__)


def find_prepared(root_uri: str, fingerprint: str) -> PreparedIndex | None:
    """The index of an earlier run with the same fingerprint, where its shards are intact."""
    uri = storage.join(root_uri, INDEX_FILE)
    if not storage.exists(uri):
        return None
    try:
        index = PreparedIndex.model_validate_json(storage.read_text(uri))
        if index.fingerprint != fingerprint:
            return None
        index = index.model_copy(update={"root_uri": root_uri})  # the folder may have been moved
        for shard in index.shards:
            find_shard(root_uri, shard, verify_checksum=True)
    except (ValueError, ShardError) as error:
        log.warning("clips in %s cannot be used and are prepared again: %s", root_uri, error)
        return None
    log.info("clips are prepared already: %s", root_uri)
    return index


@contextmanager
def published_folder(root_uri: str) -> Iterator[Path]:
    """A local folder whose content is at `root_uri` when its block ends well, and nowhere otherwise.

    Raises:
        OSError: a local `root_uri` cannot be written.
    """
    if storage.is_s3(root_uri):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "clips"
            folder.mkdir()
            yield folder
            index = (folder / INDEX_FILE).replace(Path(name) / INDEX_FILE)
            storage.upload(folder, root_uri)
            storage.upload(index, storage.join(root_uri, INDEX_FILE))  # last: it says that the rest is complete
        return
    root = Path(root_uri)
    folder = writable_folder(root.parent) / f".{root.name}.{os.getpid()}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        shutil.rmtree(root, ignore_errors=True)
        folder.replace(root)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
