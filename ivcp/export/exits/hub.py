"""Uploads an exported model to the Hugging Face hub, and asks before the long work whether that will be allowed.

The token is the environment's HF_TOKEN: no setting, no file and no log has it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivcp.export.exits.public import public_files
from ivcp.models.hub import OFFLINE_VARIABLE, HubError, hub_endpoint, is_offline
from ivcp.settings import RunConfig

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "HF_TOKEN"
_TOKENS = "https://huggingface.co/settings/tokens"
_REPLACED = (
    *("*.safetensors", "*.safetensors.index.json", "ivcp_classifier.py"),
    *("vllm_chat_template.jinja", "vllm_serve.sh"),
)
"""Files of an earlier upload that go: a reader would take them for the model's."""
_WRITING_ROLES = frozenset({"admin", "write", "contributor"})
_UNAUTHORISED, _FORBIDDEN, _CONFLICT, _CHANGED = 401, 403, 409, 412


class UploadError(HubError):
    """The hub does not take the model; the message says why and what to do."""


def check_upload(config: RunConfig) -> str | None:
    """Asks the hub whether HF_TOKEN may write the repository that the settings name; nothing is made or changed there.

    Returns its full name, `owner/name`; null where nothing is uploaded.

    Raises:
        UploadError: there is no token, the hub refuses it or does not answer, or it may not write there.
    """
    if not config.publishing.uploads_to_hub:
        return None
    if is_offline():
        raise UploadError(f"{_setting(config)}: {OFFLINE_VARIABLE} is set, and nothing can be uploaded: unset it")
    with _explained("the repository"):
        api = _api()
        who = api.whoami()
        repository = _full_name(config, owner=who["name"])
        _check_role(who.get("auth", {}).get("accessToken") or {}, repository)
        if not _may_write(api, repository):
            _check_owner(who, repository)
    return repository


def upload_model(config: RunConfig, model_dir: Path, *, repository: str) -> str:
    """Uploads what others may read of `model_dir` as one commit, and returns the commit's address.

    What is unchanged is not sent again; weights of an earlier upload that this one lacks are removed.

    Raises:
        UploadError: the hub refuses, or does not answer; the repository is as it was then.
    """
    settings = config.publishing
    with _explained(repository), public_files(model_dir) as folder:
        api = _api()
        api.create_repo(repository, private=settings.hub_private_repo, exist_ok=True)
        if settings.hub_revision:
            api.create_branch(repository, branch=settings.hub_revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=settings.hub_revision,
            commit_message="Upload the model that ivcp exported",
            delete_patterns=list(_REPLACED),
        )
    log.info("the model was uploaded: %s", commit.commit_url)
    return str(commit.commit_url)


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub_endpoint(), token=_token())


def _token() -> str:
    """Raises `UploadError` where there is none, or one that no HTTP header can hold (an error would quote it)."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise UploadError(
            f"an upload to the hub needs a token that may write, in {TOKEN_VARIABLE}: make one at {_TOKENS} and set it "
            "in the environment (on a cluster in the secret ivcp-hub); a login with `hf auth login` is not used"
        )
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise UploadError(f"{TOKEN_VARIABLE} holds characters that no token has: copy it again from {_TOKENS}")
    return token


def _setting(config: RunConfig) -> str:
    return "export_hub_model_id" if config.publishing.export_hub_model_id else "push_to_hub"


def _full_name(config: RunConfig, *, owner: str) -> str:
    settings = config.publishing
    name = settings.export_hub_model_id or settings.hub_model_id or Path(config.train.output_dir).absolute().name
    return name if "/" in name else f"{owner}/{name}"


def _check_role(token: Mapping[str, Any], repository: str) -> None:
    """Raises `UploadError` for a token that reads only, everywhere or there."""
    advice = f"make one that may write at {_TOKENS}, and set {TOKEN_VARIABLE} to it"
    if token.get("role") == "read":
        raise UploadError(f"the token in {TOKEN_VARIABLE} may only read, {repository} is to be written: {advice}")
    scopes = (token.get("fineGrained") or {}).get("scoped")
    if token.get("role") != "fineGrained" or not isinstance(scopes, list):
        return
    places = {repository.partition("/")[0], repository}
    if not any(scope["entity"].get("name") in places and "repo.write" in scope["permissions"] for scope in scopes):
        raise UploadError(
            f"the fine-grained token in {TOKEN_VARIABLE} has no write permission for {repository}: {advice}"
        )


def _may_write(api: HfApi, repository: str) -> bool:
    """Whether the repository is there, and may be written; false where it is not there (as far as the hub says)."""
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        api.auth_check(repository, write=True)
    except RepositoryNotFoundError:
        return False
    except HfHubHTTPError as error:
        if error.response.status_code == 404:  # a mirror that does not know the question
            return False
        raise
    return True


def _check_owner(who: Mapping[str, Any], repository: str) -> None:
    """Raises `UploadError` for a repository that is neither the user's nor of an organisation that the user writes."""
    owner = repository.partition("/")[0]
    roles = {organisation["name"]: organisation.get("roleInOrg") for organisation in who.get("orgs", ())}
    if owner == who["name"] or roles.get(owner, "write" if owner in roles else None) in _WRITING_ROLES:
        return
    known = ", ".join([who["name"], *(name for name, role in roles.items() if role in _WRITING_ROLES)])
    raise UploadError(
        f"{repository} cannot be made with the token in {TOKEN_VARIABLE}, which is that of {who['name']}: expected a "
        f"repository of {known}"
    )


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Turns errors of the hub's library into `UploadError`."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        raise UploadError(_refusal(error, repository)) from error
    except UploadError:
        raise
    except (HTTPError, OSError) as error:
        raise UploadError(
            f"the Hugging Face hub ({hub_endpoint()}) does not answer ({error}): check the network or HTTPS_PROXY, or "
            "set HF_ENDPOINT to a mirror; `ivcp export` again uploads what is missing"
        ) from error
    except RuntimeError as error:  # of one file
        raise UploadError(f"the upload to {repository} broke off: {error} ({error.__cause__}): export again") from error
    except ValueError as error:  # the card's metadata
        raise UploadError(f"the hub does not take {repository}: {error}") from error


def _refusal(error: Any, repository: str) -> str:
    """What a status of the hub means; its own words stand behind."""
    status, place = error.response.status_code, f"{hub_endpoint()} refuses"
    words = error.server_message or str(error).partition("\n")[0]
    if status == _UNAUTHORISED:
        return f"{place} the token in {TOKEN_VARIABLE} ({status}): it is wrong or expired; make one at {_TOKENS}"
    if status == _FORBIDDEN:
        return (
            f"{place} to have {repository} written ({status}: {words}): give the token in {TOKEN_VARIABLE} the right "
            "to write there, or name another repository"
        )
    if status in (_CONFLICT, _CHANGED):
        return f"{place} to change {repository} now ({status}: {words}): somebody else writes it; export again"
    return f"{place} the upload to {repository} ({status}: {words})"
