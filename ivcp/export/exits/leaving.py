"""The exits that a run's settings ask for: checked before the long work, taken when the merged model is checked."""

from __future__ import annotations

from pathlib import Path

from ivcp.export.exits.hub import check_upload, upload_model
from ivcp.export.exits.image import check_image, write_image
from ivcp.export.exits.public import public_files
from ivcp.records.export import Exits
from ivcp.settings import RunConfig


def check_exits(config: RunConfig) -> str | None:
    """Checks what can be known of them, and returns the repository that is uploaded to, `owner/name`, or null.

    Raises:
        ConfigError: an image cannot be written there, or not on that base.
        UploadError: the hub does not let the token in HF_TOKEN write the repository.
    """
    settings = config.publishing
    if settings.export_image:
        check_image(Path(settings.export_image), _base(config))
    return check_upload(config)


def take_exits(config: RunConfig, model_dir: Path, *, repository: str | None) -> Exits:
    """Writes the image and uploads the model, where the settings ask for that.

    Raises:
        ConfigError, UploadError: as `check_exits` says.
    """
    target = config.publishing.export_image
    digest = None
    if target:
        with public_files(model_dir) as folder:
            digest = write_image(folder, Path(target), base=_base(config))
    uploaded = upload_model(config, model_dir, repository=repository) if repository else None
    return Exits(uploaded_to=uploaded, image=target, image_digest=digest)


def _base(config: RunConfig) -> Path | None:
    base = config.publishing.export_image_base
    return Path(base) if base else None
