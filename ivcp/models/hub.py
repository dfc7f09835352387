"""Whether the Hugging Face hub answers for a model: asked once, briefly, before anything is loaded from it.

transformers itself asks for every file again and again, for minutes where the hub does not answer, and then blames the
model.
"""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

from ivcp.network import CA_VARIABLE

log = logging.getLogger(__name__)

OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
_TRIES, _SECONDS = 2, 5.0


class HubError(ConnectionError):
    """The hub does not answer, or does not give the model; the message names both and says what to do."""


@functools.cache
def check_hub(name: str, *, revision: str = "main", cache_dir: str | None = None) -> None:
    """Checks that the hub gives the model `name`; a model that is in the cache does without it.

    Where the hub does not answer and the model is in the cache, this process and those that it starts use that, without
    asking again.

    Raises:
        HubError: the hub does not answer and the model is not in the cache, or the hub refuses it.
    """
    is_cached = _is_cached(name, revision, cache_dir)
    if is_offline():
        if not is_cached:
            raise HubError(
                f"{name} is not in the cache {_cache(cache_dir)}, and {OFFLINE_VARIABLE} is set: {_elsewhere(name)}"
            )
        return
    reason = _ask(name, revision)
    if reason is None:
        return
    if not is_cached:
        raise HubError(
            f"the Hugging Face hub ({hub_endpoint()}) does not answer ({reason}), and {name} is not in the cache "
            f"{_cache(cache_dir)}: {_advice(reason)}, or {_elsewhere(name)}"
        )
    log.warning("the Hugging Face hub (%s) does not answer (%s): %s comes from the cache", hub_endpoint(), reason, name)
    os.environ[OFFLINE_VARIABLE] = "1"


def is_offline() -> bool:
    """Whether the hub's own libraries may not ask it."""
    asked = os.environ.get(OFFLINE_VARIABLE) or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return asked.upper() in ("1", "ON", "YES", "TRUE")


def _ask(name: str, revision: str) -> str | None:
    """Why the hub does not answer; null where it gives the model.

    Raises:
        HubError: it answers, and refuses the model.
    """
    import requests

    token = _token()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    reason = ""
    for _ in range(_TRIES):
        try:
            answer = requests.head(
                f"{hub_endpoint()}/{name}/resolve/{revision}/config.json", headers=headers, timeout=_SECONDS
            )
        except requests.RequestException as error:
            reason = _short(error)
            continue
        if answer.status_code < 400:
            return None
        if answer.status_code < 500 and answer.status_code != 429:
            raise HubError(_refusal(name, revision, answer.status_code, answer.headers.get("x-error-code", "")))
        reason = f"status {answer.status_code}"
    return reason


def _short(error: Exception) -> str:
    """The innermost reason of an error of requests, which wraps several."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    reason = getattr(error, "reason", None)
    return str(reason if isinstance(reason, Exception) else error).partition(": ")[2] or str(reason or error)


def _refusal(name: str, revision: str, status: int, code: str) -> str:
    if code == "RevisionNotFound":
        return f"model_revision = {revision}: {name} has no such branch, tag or commit on {hub_endpoint()}"
    if code == "EntryNotFound":
        return f"{name} on {hub_endpoint()} has no config.json: expected a model in transformers' format"
    if status in (401, 403) or code == "GatedRepo":
        return (
            f"{hub_endpoint()} does not give {name} ({status}): the name is wrong, or the model is private or gated; "
            "accept its terms on its page, and log in with `hf auth login` or set HF_TOKEN"
        )
    return (
        f"there is no model {name} on {hub_endpoint()} ({status}): correct model_name_or_path; it may be a local path"
    )


def _advice(reason: str) -> str:
    if "certificate" in reason.lower():
        return f"give the certificate of its authority in {CA_VARIABLE}"
    return "check the network or HTTPS_PROXY, set HF_ENDPOINT to a mirror"


def _elsewhere(name: str) -> str:
    return f"download it where there is a network (hf download {name}) and set model_name_or_path to its folder"


def hub_endpoint() -> str:
    """The address of the hub or of a mirror, without a slash at its end."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _home() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(os.environ.get("HF_HOME", default)).expanduser()


def _cache(cache_dir: str | None) -> Path:
    return Path(cache_dir or os.environ.get("HF_HUB_CACHE") or _home() / "hub").expanduser()


def _is_cached(name: str, revision: str, cache_dir: str | None) -> bool:
    folder = _cache(cache_dir) / f"models--{name.replace('/', '--')}"
    reference = folder / "refs" / revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    return (folder / "snapshots" / commit / "config.json").exists()


def _token() -> str | None:
    if token := os.environ.get("HF_TOKEN"):
        return token
    file = Path(os.environ.get("HF_TOKEN_PATH", _home() / "token")).expanduser()
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None
