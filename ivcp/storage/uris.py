"""Local paths and s3:// URIs through one set of calls.

A missing object is a FileNotFoundError, refused credentials are a PermissionError and a server that does not answer is
a ConnectionError, each naming the URI. Downloads go to a cache that several processes share and that stays below
IVCP_CACHE_MAX_BYTES, by default nine tenths of what its disk has for it: see `ivcp.storage.cache`. In a pod, whose
volumes do not show their limit, IVCP_POD_CACHE_MAX_BYTES is the default.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import ByteSize, TypeAdapter, ValidationError

from ivcp.storage import s3
from ivcp.storage.atomic import replacing, write_whole
from ivcp.storage.cache import FileCache
from ivcp.storage.s3 import S3, Location, S3Object, translated_errors

POD_LIMIT_VARIABLE = "IVCP_POD_CACHE_MAX_BYTES"


def local_path(uri: str | Path, *, cache_dir: Path | None = None, only: Callable[[str], bool] | None = None) -> Path:
    """The file or folder as a local path; an s3:// object or prefix is downloaded into a cache, whole or not at all.

    `only` chooses the objects below a prefix that are needed, by their paths in it; of a folder here all are there.

    The cache is `cache_dir`, else the environment's IVCP_CACHE_DIR, else `~/.cache/ivcp`. An object that changed
    on the server is downloaded again; the older copy stays valid for whoever holds its path. What this process got is
    not removed from the cache while it runs: where many files are used one after the other, use `borrowed`.

    Raises:
        FileNotFoundError: there is no such file, object or prefix.
        PermissionError: the server refuses the credentials, or there are none.
        ConnectionError: the server cannot be reached.
    """
    if not is_s3(uri):
        path = as_path(uri)
        if not _exists(path):
            raise FileNotFoundError(f"{path} does not exist: expected a file or a folder")
        return path
    return _use(str(uri), cache_dir, only)[0]


def cached(identity: str, num_bytes: int, fill: Callable[[Path], None]) -> Path:
    """The folder in the cache that holds what `identity` names, of so many bytes, where `fill` puts it.

    Of several processes one fills it, and the others wait; it may find what an interrupted filling left. What this
    process got stays while it runs.
    """
    name = f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}-{num_bytes}"
    return _this_cache(None).use(name, fill)


@contextmanager
def borrowed(uri: str | Path, *, cache_dir: Path | None = None) -> Iterator[Path]:
    """`local_path` for the time of the block: after it, the cache may remove what was downloaded."""
    if not is_s3(uri):
        yield local_path(uri)
        return
    path, release = _use(str(uri), cache_dir)
    try:
        yield path
    finally:
        release()


def exists(uri: str | Path) -> bool:
    """Whether there is such a file or folder, object or non-empty prefix.

    Raises:
        FileNotFoundError: the bucket does not exist.
        PermissionError: the server refuses the credentials, or there are none.
        ConnectionError: the server cannot be reached.
    """
    if not is_s3(uri):
        return _exists(as_path(uri))
    location = Location.parse(str(uri))
    with translated_errors(str(uri)):
        return location.object() is not None or bool(location.below(limit=1))


def list_files(uri: str | Path) -> list[str]:
    """The files below a folder or prefix, as `file_sizes` names them, sorted.

    Raises:
        FileNotFoundError: there is no such folder or bucket; other errors as in `local_path`.
    """
    if not is_s3(uri):
        local_path(uri)  # says what is missing
    return sorted(file_sizes(uri))


def file_sizes(uri: str | Path) -> dict[str, int]:
    """Bytes of each file below a folder or prefix, by its path in it with `/` between folders.

    Links are followed, except those that lead to a folder around them. Empty where there is no such folder.

    Raises:
        FileNotFoundError: the bucket does not exist; other errors as in `local_path`.
    """
    if not is_s3(uri):
        root = as_path(uri)
        sizes = {}
        for path in _files_below(root):
            with suppress(FileNotFoundError):  # renamed by its writer meanwhile
                sizes[path.relative_to(root).as_posix()] = path.stat().st_size
        return sizes
    location = Location.parse(str(uri))
    with translated_errors(str(uri)):
        return {item.key[len(location.key) :].lstrip("/"): item.num_bytes for item in location.below()}


def _files_below(root: Path) -> Iterator[Path]:
    """Files, no pipes, no devices and no broken links."""
    for folder, subfolders, names in os.walk(root, followlinks=True):
        here = Path(folder).resolve()
        subfolders[:] = [name for name in subfolders if not here.is_relative_to(Path(folder, name).resolve())]
        yield from (path for name in names if (path := Path(folder, name)).is_file())


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 (Path.exists raises for names that are too long)


def file_versions(uri: str | Path) -> dict[str, str]:
    """What changes with the content of each file below a folder or prefix, by its path in it: from one listing.

    Size and ETag on S3, size and time of change in a folder. Errors as in `file_sizes`.
    """
    if is_s3(uri):
        location = Location.parse(str(uri))
        with translated_errors(str(uri)):
            found = location.below()
        return {item.key[len(location.key) :].lstrip("/"): f"{item.num_bytes} {item.etag}" for item in found}
    versions = {}
    for name in file_sizes(uri):
        with suppress(FileNotFoundError):  # renamed by its writer meanwhile
            status = (as_path(uri) / name).stat()
            versions[name] = f"{status.st_size} {status.st_mtime_ns}"
    return versions


def etag(uri: str) -> str:
    """The ETag of an S3 object, which changes with its content; errors as in `local_path`."""
    with translated_errors(uri):
        found = Location.parse(uri).object()
    if found is None:
        raise FileNotFoundError(f"{uri}: no such object")
    return found.etag.strip('"')


def read_text(uri: str | Path) -> str:
    """The content of a UTF-8 file or object; errors as in `local_path`."""
    if not is_s3(uri):
        return local_path(uri).read_text(encoding="utf-8")
    return read_bytes(uri).decode("utf-8")


def read_bytes(uri: str | Path) -> bytes:
    """The content of a file or object; errors as in `local_path`."""
    if not is_s3(uri):
        return local_path(uri).read_bytes()
    with translated_errors(str(uri)):
        return s3.read(Location.parse(str(uri)))


def read_part(uri: str | Path, start: int, end: int) -> bytes:
    """The bytes of a file or object from `start` to before `end`, fewer where it ends; errors as `local_path`."""
    if not is_s3(uri):
        with local_path(uri).open("rb") as file:
            file.seek(start)
            return file.read(end - start)
    with translated_errors(str(uri)):
        return s3.read_part(Location.parse(str(uri)), start, end)


def write_text(uri: str, text: str) -> None:
    """Makes or replaces a UTF-8 file or object, whole or not at all; errors as in `local_path`."""
    if is_s3(uri):
        with translated_errors(uri):
            s3.write(Location.parse(uri), text.encode("utf-8"))
        return
    path = as_path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def fetch(uri: str, target: Path) -> None:
    """Copies a file, or all files of a folder or prefix, to `target`, which is replaced, whole or not at all.

    After an interruption the next call continues with what lies in a hidden folder beside `target`. Errors as in
    `local_path`.
    """
    staging = target.with_name(f".{target.name}.fetching")
    if is_s3(uri):
        location = Location.parse(uri)
        with translated_errors(uri):
            objects = location.objects()
            if not objects:
                raise FileNotFoundError(f"{uri}: no such object, and no objects below it")
            s3.download(location, objects, staging)
            arrived = staging / location.relative(location.key)
    else:
        _copy(local_path(uri), arrived := staging / target.name)
    _remove(target)
    arrived.replace(target)
    _remove(staging)


def delete(uri: str) -> None:
    """Removes a file or object, or a folder or prefix with all that is in it; what is not there is no error.

    Errors as in `local_path`.
    """
    if not is_s3(uri):
        _remove(as_path(uri))
        return
    with translated_errors(uri):
        s3.delete(Location.parse(uri))


def upload(path: Path, uri: str) -> None:
    """Copies a file, or all files of a folder, to `uri`, which is their new name; errors as in `local_path`.

    What is there already with the same content is not sent again: an interrupted upload continues where it was.
    """
    if not path.exists():
        raise FileNotFoundError(f"cannot upload {path}: it does not exist")
    if not is_s3(uri):
        _copy(path, as_path(uri))
        return
    location = Location.parse(uri)
    names = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    files = {posixpath.join(location.key, file.relative_to(path).as_posix()): file for file in names if file != path}
    with translated_errors(uri):
        present = location.below() if path.is_dir() else [found] if (found := location.object()) else []
        s3.send(files or {location.key: path}, location.bucket, {item.key: item for item in present})


def join(uri: str | Path, *parts: str) -> str:
    """`uri` with `parts` below it; in an s3:// URI, `.` and `..` are resolved, because S3 does not know them."""
    joined = "/".join((str(uri).rstrip("/"), *(part.strip("/") for part in parts)))
    return S3 + posixpath.normpath(joined.removeprefix(S3)) if is_s3(uri) else joined


def is_s3(uri: str | Path) -> bool:
    """Whether this is an s3:// URI.

    Raises:
        ValueError: it was one, and went through `pathlib.Path`, which drops a slash.
    """
    text = str(uri)
    if text.startswith("s3:/") and not text.startswith(S3):
        raise ValueError(f"{text!r} is a damaged s3:// URI: pass it as a string, not as a pathlib.Path")
    return text.startswith(S3)


def default_cache_dir() -> Path:
    """Where downloads go: IVCP_CACHE_DIR, else `ivcp` in the user's cache folder."""
    configured = os.environ.get("IVCP_CACHE_DIR")
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(configured) if configured else user_cache / "ivcp"


def _cache_name(location: Location, objects: Sequence[S3Object]) -> str:
    """The name of their entry in the cache: other content has another one."""
    identity = "\n".join([location.bucket, location.key, *(f"{item.key} {item.etag}" for item in objects)])
    return f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}-{sum(item.num_bytes for item in objects)}"


def _use(
    uri: str, cache_dir: Path | None, only: Callable[[str], bool] | None = None
) -> tuple[Path, Callable[[], None]]:
    """The local copy of what stands at `uri`, and what to call when it is not used any more."""
    location = Location.parse(uri)
    with translated_errors(uri):
        found = location.objects()
        if not found:
            raise FileNotFoundError(f"{uri}: no such object, and no objects below it")
        inside = len(location.key) + 1 if location.key else 0
        objects = [item for item in found if only is None or item.key == location.key or only(item.key[inside:])]
        files = _this_cache(cache_dir)
        name = _cache_name(location, objects)
        folder = files.use(name, lambda staging: s3.download(location, objects, staging))
    return folder / location.relative(location.key), lambda: files.release(name)


def _this_cache(cache_dir: Path | None) -> FileCache:
    in_pod = os.environ.get(POD_LIMIT_VARIABLE) if "KUBERNETES_SERVICE_HOST" in os.environ else None
    return _cache(os.getpid(), cache_dir or default_cache_dir(), os.environ.get("IVCP_CACHE_MAX_BYTES") or in_pod)


@cache
def _cache(process_id: int, folder: Path, max_bytes: str | None) -> FileCache:
    """One cache per process and folder: a forked process has leases of its own."""
    try:
        return FileCache(folder, TypeAdapter(ByteSize).validate_python(max_bytes) if max_bytes else None)
    except ValidationError as error:
        raise ValueError(f"IVCP_CACHE_MAX_BYTES = {max_bytes!r}: expected bytes, or a size such as 50GB") from error


def _copy(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, target, dirs_exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial:
        shutil.copyfile(path, partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def as_path(uri: str | Path) -> Path:
    """A local path that is given as such or as a file:// URI."""
    text = str(uri)
    return Path(unquote(urlsplit(text).path)) if text.startswith("file://") else Path(text)
