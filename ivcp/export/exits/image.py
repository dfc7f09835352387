"""A model as a container image: an OCI image layout in a folder, written without a daemon.

Each file is a layer of its own, stored as it is: weights do not shrink, and a registry that has a layer is not sent it
again. Times and owners are the same always, so that the same files give the same digests. The files lie below
`/models`, as KServe's modelcar wants them; that also wants a shell in the image, from a base. A Kubernetes image volume
needs none: without a base the image is for amd64 and arm64 alike.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from ivcp.settings import ConfigError
from ivcp.storage.atomic import write_whole

log = logging.getLogger(__name__)

LAYOUT_FILE, INDEX_FILE = "oci-layout", "index.json"
MODELS = "models"
"""Folder in the image."""
_TAG = "latest"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG, _MANIFEST = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_OF_DOCKER = "application/vnd.docker."
_PLATFORMS = ({"architecture": "amd64", "os": "linux"}, {"architecture": "arm64", "os": "linux"})
_CHUNK = 2**20

Descriptor = dict[str, Any]
"""A blob's mediaType, digest and size; an image's platform too."""


@dataclass(frozen=True)
class _Base:
    """An image that layers are put on."""

    config: Mapping[str, Any]
    layers: Sequence[Descriptor]


def check_image(target: Path, base: Path | None) -> None:
    """Checks that an image can be written to `target`, and that `base` is one.

    Raises:
        ConfigError: `target` holds something else, or `base` is no OCI layout, or lacks blobs.
    """
    if target.exists() and not (target / LAYOUT_FILE).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"export_image = {target} is there and no OCI image layout: name another folder")
    if base is None:
        return
    if target.resolve() == base.resolve():
        raise ConfigError(f"export_image = {target} is export_image_base: name another folder")
    if not (base / LAYOUT_FILE).is_file():
        raise ConfigError(
            f"export_image_base = {base}: expected the folder of an OCI image layout, as `skopeo copy "
            f"docker://busybox oci:{base.name}` writes one"
        )
    for image in _images(base):
        missing = [layer["digest"] for layer in image.layers if not _blob(base, layer["digest"]).is_file()]
        if missing:
            raise ConfigError(f"export_image_base = {base} lacks {missing[0]}: copy it again, with all its layers")


def write_image(folder: Path, target: Path, *, base: Path | None = None) -> str:
    """Writes the files of `folder` as an image to `target`, and returns its digest, `sha256:…`.

    What an earlier export wrote there is replaced; layers that are the same stay.

    Raises:
        ConfigError: as `check_image` says.
    """
    check_image(target, base)
    (target / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    layers = [_write_layer(file, folder, target) for file in sorted(folder.rglob("*")) if file.is_file()]
    bases = _images(base) if base else [_Base({**platform, "rootfs": {}}, ()) for platform in _PLATFORMS]
    for image in bases:
        for layer in image.layers:
            _copy_blob(base, target, layer["digest"])
    images = [_write_manifest(image, layers, target) for image in bases]
    top = images[0] if len(images) == 1 else _write_json(target, _INDEX, _index(images))
    tagged = top | {"annotations": {"org.opencontainers.image.ref.name": _TAG}}
    write_whole(target / LAYOUT_FILE, '{"imageLayoutVersion": "1.0.0"}\n')
    write_whole(target / INDEX_FILE, json.dumps(_index([tagged]), indent=2) + "\n")
    _prune(target)
    log.info("the model is the image %s in %s", top["digest"], target)
    return str(top["digest"])


def _index(manifests: Sequence[Descriptor]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": _INDEX, "manifests": list(manifests)}


def _write_layer(file: Path, folder: Path, target: Path) -> Descriptor:
    """A tar with one file, and the folders that it lies in."""
    name = PurePosixPath(MODELS) / file.relative_to(folder).as_posix()
    with (
        tempfile.NamedTemporaryFile(dir=target, prefix=".layer-", delete=False) as made,
        tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar,
        file.open("rb") as content,
    ):
        for parent in reversed(name.parents[:-1]):
            tar.addfile(_entry(parent, tarfile.DIRTYPE, 0o755))
        tar.addfile(_entry(name, tarfile.REGTYPE, 0o644, size=file.stat().st_size), content)
    return _store(Path(made.name), target, _LAYER)


def _entry(name: PurePosixPath, kind: bytes, mode: int, *, size: int = 0) -> tarfile.TarInfo:
    """Of root, from 1970."""
    entry = tarfile.TarInfo(str(name))
    entry.type, entry.mode, entry.size = kind, mode, size
    return entry


def _write_manifest(base: _Base, layers: Sequence[Descriptor], target: Path) -> Descriptor:
    config = dict(base.config)
    diffs = [*config["rootfs"].get("diff_ids", ()), *(layer["digest"] for layer in layers)]
    config["rootfs"] = {"type": "layers", "diff_ids": diffs}
    config["history"] = [*config.get("history", ()), *({"created_by": "ivcp export"} for _ in layers)]
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _write_json(target, _CONFIG, config),
        "layers": [*base.layers, *layers],
    }
    platform = {key: config[key] for key in ("architecture", "os", "variant") if config.get(key)}
    return _write_json(target, _MANIFEST, manifest) | {"platform": platform}


def _write_json(target: Path, media_type: str, content: Mapping[str, Any]) -> Descriptor:
    with tempfile.NamedTemporaryFile(dir=target, prefix=".json-", delete=False) as made:
        made.write(json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode())
    return _store(Path(made.name), target, media_type)


def _store(file: Path, target: Path, media_type: str) -> Descriptor:
    """Gives a temporary file the name of its digest."""
    with file.open("rb") as opened:
        digest = _digest(opened)
    file.chmod(0o644)
    size = file.stat().st_size
    file.replace(_blob(target, digest))
    return {"mediaType": media_type, "digest": digest, "size": size}


def _copy_blob(base: Path | None, target: Path, digest: str) -> None:
    place = _blob(target, digest)
    if base is None or place.is_file():
        return
    with tempfile.NamedTemporaryFile(dir=target, prefix=".base-", delete=False) as made:
        made.write(_blob(base, digest).read_bytes())
    stored = _store(Path(made.name), target, _LAYER)
    if stored["digest"] != digest:
        raise ConfigError(f"export_image_base = {base}: the layer {digest} is damaged: copy the base again")


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _blob(layout: Path, digest: str) -> Path:
    algorithm, _, name = digest.partition(":")
    return layout / "blobs" / algorithm / name


def _images(layout: Path) -> list[_Base]:
    """The images of a layout, one for each platform: those that index.json names, or an index below it."""
    return [
        _Base(_read(layout, manifest["config"]["digest"]), [_as_oci(layer) for layer in manifest["layers"]])
        for manifest in _manifests(layout, json.loads((layout / INDEX_FILE).read_text(encoding="utf-8")))
    ]


def _manifests(layout: Path, index: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for descriptor in index["manifests"]:
        if descriptor.get("platform", {}).get("os") == "unknown":  # an attestation, no image
            continue
        if not _blob(layout, descriptor["digest"]).is_file():  # another platform, which was not copied
            continue
        content = _read(layout, descriptor["digest"])
        if "manifests" in content:
            yield from _manifests(layout, content)
        else:
            yield content


def _as_oci(layer: Descriptor) -> Descriptor:
    """Docker's name for a compressed layer in OCI's words."""
    if not layer["mediaType"].startswith(_OF_DOCKER):
        return layer
    return layer | {"mediaType": f"{_LAYER}+gzip"}


def _read(layout: Path, digest: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(_blob(layout, digest).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"export_image_base = {layout} lacks {digest}: copy it again") from error
    return content


def _prune(target: Path) -> None:
    """Removes the blobs of an earlier image."""
    used = set()
    for descriptor in json.loads((target / INDEX_FILE).read_text(encoding="utf-8"))["manifests"]:
        used |= _used(target, descriptor)
    for blob in (target / "blobs" / "sha256").iterdir():
        if f"sha256:{blob.name}" not in used:
            blob.unlink()


def _used(layout: Path, descriptor: Descriptor) -> set[str]:
    if descriptor["mediaType"] not in (_INDEX, _MANIFEST):
        return {descriptor["digest"]}
    content = _read(layout, descriptor["digest"])
    below = content.get("manifests") or [content["config"], *content["layers"]]
    return {descriptor["digest"]}.union(*(_used(layout, part) for part in below))
