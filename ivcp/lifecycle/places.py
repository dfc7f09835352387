"""Where a pipeline run keeps what outlives it, unless its settings say: below the pipeline root, for all runs.

A step on a cluster is not told the pipeline root (the SDK's placeholder for it is filled in on one machine only). It is
the begin of the URI of each artifact, `<root>/<pipeline>/<run>/<step>/…`.
"""

from __future__ import annotations

import re
from pathlib import Path

from ivcp import storage
from ivcp.settings import ConfigError

_S3_SCHEMES = re.compile(r"^(minio|gs)://")
"""Stores with S3's interface, which AWS_ENDPOINT_URL leads to."""
_CLIPS, _MODELS = "clips", "models"


def default_places(artifact_uri: str, *, pipeline_run: str) -> dict[str, str]:
    """`shards_uri` and `models_uri`, by the URI of an artifact of the run's first step.

    They are the same for all runs that have this pipeline root, so that clips are prepared once.
    """
    common = place_of_all_runs(artifact_uri, pipeline_run=pipeline_run)
    return {"shards_uri": storage.join(common, _CLIPS), "models_uri": storage.join(common, _MODELS)}


def place_of_all_runs(artifact_uri: str, *, pipeline_run: str) -> str:
    """`<root>/<pipeline>` on a cluster; the pipeline root itself on one machine, where a run's folder has no id."""
    before, found, _ = artifact_uri.partition(f"/{pipeline_run}/")
    if found:
        return _S3_SCHEMES.sub("s3://", before)
    return str(Path(artifact_uri).parents[2])


def check_reachable(uri: str) -> None:
    """Checks, early, that a place below the pipeline root is reached with the steps' own credentials.

    Raises:
        ConfigError: it is not.
    """
    try:
        storage.exists(uri)
    except OSError as error:
        raise ConfigError(
            f"the prepared clips would go to {uri}, below the pipeline root, which this step does not reach with the "
            f"keys and the endpoint of the Kubernetes secret ivcp-s3: {error}; correct the secret, or set shards_uri "
            "and models_uri to a place that it does reach"
        ) from error
