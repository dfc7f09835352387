"""Versions of the registry put into service by hand: one that waits, or the one that was the champion before."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ivcp import storage
from ivcp.deployment.locally import DeploymentResult, deploy_local
from ivcp.deployment.on_cluster import ClusterDeployment, deploy_cluster
from ivcp.deployment.predictor_manifests import ServedModel
from ivcp.deployment.smoke_test import choose_smoke_clip
from ivcp.export.deployed_next import why_not_deployed
from ivcp.export.predictor_needs import predictor_needs
from ivcp.export.weights import weights_hash
from ivcp.kubernetes import images
from ivcp.records import RUN_CONFIG_FILE
from ivcp.records.registered import ModelVersionRef, RegisteredVersion
from ivcp.settings import ConfigError, RunConfig, read_model_config
from ivcp.stages.registry import stage_of
from ivcp.tracking import promote_model
from ivcp.tracking.registry import WEIGHTS_TAG

log = logging.getLogger(__name__)


def version_before(versions: Sequence[RegisteredVersion], alias: str) -> RegisteredVersion:
    """The version that was the champion before the one that has the alias; of a version gone back to, that one.

    Raises:
        ConfigError: none has the alias, or none was the champion before.
    """
    champion = next((version for version in versions if alias in version.aliases), None)
    if champion is None:
        raise ConfigError(f"no version has the alias {alias}: `ivcp models promote VERSION` gives it to one")
    former = [version for version in versions if version.promoted_at and version.version != champion.version]
    if not former:
        raise ConfigError(
            f"version {champion.version} of {champion.name} is the {alias}, and no other one is recorded as a former "
            "one: `ivcp models list` shows all; `ivcp models promote VERSION` goes to one of them"
        )
    return max(former, key=lambda version: version.promoted_at or "")


def put_into_service(
    config: RunConfig, version: RegisteredVersion, *, output_dir: Path, deploy: bool = True
) -> DeploymentResult | ClusterDeployment | None:
    """Deploys a registered version as the settings say, and moves the alias to it when it has answered.

    A folder here has to hold its weights still: a later export into it may have written over them.

    It is asked for the clip that evaluation chose when it was exported. A version from before the one that serves may
    be deployed too. Without `deploy`, or for a model that is not served, only the alias moves; null is returned then.

    Raises:
        ConfigError: its files are not there any more, or are another model's by now.
        DeploymentError, KubernetesError, ConnectionError: it does not serve; what served before goes on.
        RegistryError: the registry is away, or refuses.
    """
    registered = ModelVersionRef(name=version.name, version=version.version, source=version.model_dir)
    _check_weights(config, version)
    if not deploy or why_not_deployed(config) is not None:
        promote_model(registered, config=config)
        return None
    try:
        model_dir = storage.local_path(version.model_dir)
    except FileNotFoundError as error:
        raise ConfigError(
            f"version {version.version} of {version.name} cannot be deployed, its files are gone: {error}"
        ) from error
    served_dir = model_dir / config.deployed_graph if config.deployed_graph else model_dir
    smoke_clip = choose_smoke_clip(model_dir)

    def promote() -> None:
        promote_model(registered, config=config, deployed_to=config.serving.place)

    if config.serving.serve_target != "cluster":
        result = deploy_local(config, model_dir=served_dir, smoke_clip=smoke_clip, output_dir=output_dir)
        promote()
        return result
    uri = storage.join(version.model_dir, config.deployed_graph) if config.deployed_graph else version.model_dir
    return deploy_cluster(
        config,
        image=config.serving.serve_image or images.SERVING,
        model=ServedModel(
            uri=uri,
            name=version.name,
            version=version.version,
            run_id=version.run_id,
            top1_accuracy=version.top1_accuracy,
            needs=predictor_needs(served_dir, config.serving),
        ),
        model_dir=served_dir,
        smoke_clip=smoke_clip,
        output_dir=output_dir,
        promote=promote,
        takes_older=True,
    )


def _check_weights(config: RunConfig, version: RegisteredVersion) -> None:
    known, folder = version.tags.get(WEIGHTS_TAG), version.model_dir
    if known is None or storage.is_s3(folder) or not Path(folder).is_dir():
        return
    try:
        found = weights_hash(Path(folder), stage_of(config).files)
    except FileNotFoundError:
        found = None
    if found != known:
        raise ConfigError(
            f"{folder} holds the weights of another model by now, and not those of version {version.version} of "
            f"{version.name}: there is no way back to it. Another export_dir for each model, or models_uri, keeps them"
        )


def settings_apart(first: RegisteredVersion, second: RegisteredVersion) -> list[tuple[str, str, str]]:
    """Name and both values of each setting that is not the same; of files that are gone, what is known of them."""
    ours, theirs = _settings_of(first), _settings_of(second)
    return [
        (name, ours.get(name, "not known"), theirs.get(name, "not known"))
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


def _settings_of(version: RegisteredVersion) -> dict[str, str]:
    try:
        file = storage.local_path(storage.join(version.model_dir, RUN_CONFIG_FILE))
        return {name: str(value) for name, value in read_model_config(file).flat().items()}
    except (OSError, ConfigError):  # gone, out of reach, or of a version with other settings
        return {}
