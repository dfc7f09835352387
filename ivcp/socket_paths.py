"""Paths of Unix sockets may have 107 bytes, and multiprocessing makes its sockets below TMPDIR.

Behind a longer one no worker process starts, and a data loader with workers waits for ever. Python 3.14 takes another
folder there by itself.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import threading
from multiprocessing.util import Finalize

_LONGEST_FOLDER = 107 - len("/pymp-12345678/listener-12345678")
_lock = threading.Lock()


def make_socket_paths_fit() -> None:
    """Lets multiprocessing's sockets, of this process and its children, lie below /tmp where TMPDIR is too long."""
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    with _lock:
        if config.get("tempdir") is not None or len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_FOLDER:
            return
        config["tempdir"] = folder = tempfile.mkdtemp(prefix="pymp-", dir="/tmp")
        Finalize(None, shutil.rmtree, args=(folder,), kwargs={"ignore_errors": True}, exitpriority=-100)
