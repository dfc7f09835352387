"""Local paths and s3:// URIs through one set of calls, a download cache, and atomic writes."""

from ivcp.storage.rewriting import Change, rewrite
from ivcp.storage.uris import (
    borrowed,
    default_cache_dir,
    delete,
    etag,
    exists,
    fetch,
    file_sizes,
    file_versions,
    is_s3,
    join,
    list_files,
    local_path,
    read_text,
    upload,
    write_text,
)

__all__ = [
    "Change",
    "borrowed",
    "default_cache_dir",
    "delete",
    "etag",
    "exists",
    "fetch",
    "file_sizes",
    "file_versions",
    "is_s3",
    "join",
    "list_files",
    "local_path",
    "read_text",
    "rewrite",
    "upload",
    "write_text",
]
