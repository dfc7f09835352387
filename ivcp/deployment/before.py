"""What served before, kept on the cluster while a deployment is under way: who is killed leaves it to the next one.

It is a ConfigMap of its own and no annotation of the Deployment: a rollout copies annotations to the ReplicaSet, and
`kubectl rollout undo` copies them back, long after they were true.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from ivcp.deployment.applied_fields import applied_by
from ivcp.deployment.cluster_objects import FIELD_MANAGER, ClusterObjects, FieldConflictError
from ivcp.deployment.predictor_manifests import DEPLOYMENT, Manifest
from ivcp.deployment.rollout import revision_of
from ivcp.deployment.smoke_test import DeploymentError

CONFIG_MAP = "ConfigMap"
Former = dict[str, Manifest | None]
"""What `ivcp` had applied, by kind; null where the object did not exist."""

log = logging.getLogger(__name__)


def config_map_name(deployment: str) -> str:
    """Of the ConfigMap of a Deployment."""
    return f"{deployment}-before"


def write_before(
    objects: ClusterObjects, name: str, former: Former, *, live: Manifest | None, attempt: Manifest
) -> None:
    """Keeps `former` until the Deployment `attempt`, which is applied to `live` next, serves or is taken back."""
    existing = {kind: manifest for kind, manifest in former.items() if manifest is not None}
    data = {
        "former": json.dumps(existing),
        "attempt": json.dumps(attempt),
        "revision": str(revision_of(live)),
        "since": datetime.now(UTC).isoformat(),
    }
    metadata = {"name": config_map_name(name), "namespace": objects.namespace}
    body = {"apiVersion": "v1", "kind": CONFIG_MAP, "metadata": metadata, "data": data}
    objects.apply(body, take_over=True)


def forget_before(objects: ClusterObjects, name: str) -> None:
    """The deployment has come to its end."""
    objects.delete(CONFIG_MAP, config_map_name(name))


def read_before(objects: ClusterObjects, name: str, live: Manifest | None) -> Former:
    """What an interrupted deployment kept, where the Deployment `live` is still as that one left or found it.

    Empty where there is nothing, and where somebody has changed the Deployment since: then that is what serves.

    Raises:
        DeploymentError: somebody else has a ConfigMap of this name.
    """
    kept = objects.read(CONFIG_MAP, config_map_name(name))
    if kept is None:
        return {}
    if applied_by(FIELD_MANAGER, kept) is None:
        raise DeploymentError(
            f"ConfigMap {objects.namespace}/{config_map_name(name)} exists, and ivcp did not make it: what serves is "
            "kept under this name during a deployment. Rename yours, or choose another serve_name"
        )
    former: Former = json.loads(kept["data"]["former"])
    attempt: Manifest = json.loads(kept["data"]["attempt"])
    is_newer = revision_of(live) > int(kept["data"]["revision"]) + 1  # also where it was undone and done again
    if live and not is_newer and any(_is_applied(objects, one, live) for one in (attempt, former.get(DEPLOYMENT))):
        log.info(
            "a deployment was interrupted (it began at %s): if this one fails, what served before that one comes back",
            kept["data"]["since"],
        )
        return former
    log.info("%s was changed after a deployment that was interrupted: what is there now counts", name)
    return {}


def _is_applied(objects: ClusterObjects, manifest: Manifest | None, live: Manifest) -> bool:
    """Whether applying a Deployment's manifest would leave its pods as they are."""
    if manifest is None:
        return False
    try:
        planned = objects.apply(manifest, dry_run=True)
    except FieldConflictError:
        return False
    return bool(planned["spec"]["template"] == live["spec"]["template"])
