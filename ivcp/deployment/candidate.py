"""The candidate: a new version's own Deployment behind its own Service, which gets no traffic until it is checked.

It is what the stable Deployment would become, with one pod and labels of its own: what others have patched in, such as
node selectors, is in it too.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from ivcp.deployment.applied_fields import applied_by
from ivcp.deployment.cluster_objects import FIELD_MANAGER, TERMINATED_SECONDS, ClusterObjects
from ivcp.deployment.predictor_manifests import DEPLOYMENT, SERVICE, Manifest
from ivcp.deployment.rollout import wait_for_rollout
from ivcp.deployment.smoke_test import DeploymentError
from ivcp.kubernetes.api import KubernetesError, Terminated
from ivcp.settings import ConfigError
from ivcp.settings.sections.serving import ServingConfig

_SUFFIX, _CANDIDATE = "-candidate", "candidate"
_NAME_LABEL, _TRACK_LABEL = "app.kubernetes.io/name", "ivcp.dev/track"

log = logging.getLogger(__name__)


def candidate_name(name: str) -> str:
    """Of the candidate's Deployment and Service."""
    return f"{name}{_SUFFIX}"


def candidate_url(serving: ServingConfig) -> str:
    """Where the step reaches the candidate's Service.

    Raises:
        ConfigError: `serve_url` does not say how Services are reached.
    """
    name = serving.serve_name
    if serving.serve_candidate_url:
        return serving.serve_candidate_url
    if serving.serve_url is None:
        return f"http://{candidate_name(name)}.{serving.serve_namespace}.svc"
    parts = urlsplit(serving.serve_url)
    host, path = parts.netloc, parts.path
    if host.partition(".")[0] == name:
        return parts._replace(netloc=f"{candidate_name(name)}{host.removeprefix(name)}").geturl()
    if f"/services/{name}:" in path:
        path = path.replace(f"/services/{name}:", f"/services/{candidate_name(name)}:")
        return parts._replace(path=path).geturl()
    raise ConfigError(
        f"serve_url = {serving.serve_url} does not name the Service {name}, so the address of {candidate_name(name)}, "
        "where a new model is checked before it serves, does not follow from it: set serve_candidate_url"
    )


def candidate_manifests(wanted: Manifest, planned: Manifest, service: Manifest) -> list[Manifest]:
    """The candidate's Service and Deployment.

    `wanted` is the stable Deployment's manifest, `planned` what the server would make of it, and `service` the stable
    Service's manifest.
    """
    name = wanted["metadata"]["name"]
    own = {_NAME_LABEL: candidate_name(name), _TRACK_LABEL: _CANDIDATE}
    labels = wanted["metadata"]["labels"] | own
    spec = _relabelled(planned["spec"], wanted["spec"]["selector"]["matchLabels"], own) | {"replicas": 1}
    spec["template"]["metadata"].pop("creationTimestamp", None)
    metadata = {
        "name": candidate_name(name),
        "namespace": wanted["metadata"]["namespace"],
        "labels": labels,
        "annotations": wanted["metadata"]["annotations"],
    }
    selector = {key: labels[key] for key in wanted["spec"]["selector"]["matchLabels"]}
    return [
        service
        | {"metadata": {key: metadata[key] for key in ("name", "namespace", "labels")}}
        | {"spec": service["spec"] | {"selector": selector}},
        {"apiVersion": wanted["apiVersion"], "kind": DEPLOYMENT, "metadata": metadata, "spec": spec},
    ]


@contextmanager
def running_candidate(objects: ClusterObjects, manifests: list[Manifest], *, timeout_seconds: float) -> Iterator[None]:
    """Inside, the candidate's pod is ready. It is removed whatever happens.

    Raises:
        DeploymentError: its pod does not start, or somebody else has an object of that name.
        KubernetesError, ConnectionError: the API server refuses, or stays away.
    """
    name = manifests[0]["metadata"]["name"]
    for kind in (DEPLOYMENT, SERVICE):
        _remove_leftover(objects, kind, name)
    made: dict[str, str | None] = {}
    try:
        for manifest in manifests:
            made[manifest["kind"]] = None  # from here on it may exist
            live = objects.apply(manifest)
            made[manifest["kind"]] = live["metadata"]["uid"]
        generation = live["metadata"]["generation"]
        wait_for_rollout(objects, name, generation=generation, timeout_seconds=timeout_seconds)
        yield
    except BaseException as error:
        try:
            is_terminated = isinstance(error, Terminated)
            _remove(objects, name, made, patience_seconds=TERMINATED_SECONDS if is_terminated else timeout_seconds)
        except (KubernetesError, ConnectionError) as failure:
            error.add_note(f"{name} could not be removed: {failure}")
        raise
    _remove(objects, name, made, patience_seconds=timeout_seconds)


def _remove(objects: ClusterObjects, name: str, made: dict[str, str | None], *, patience_seconds: float) -> None:
    with objects.cleaning_up(patience_seconds=patience_seconds):
        for kind, uid in reversed(made.items()):
            live = objects.read(kind, name)
            if live is not None and (uid == live["metadata"]["uid"] or _is_candidate(live)):
                objects.delete(kind, name, uid=live["metadata"]["uid"])


def _remove_leftover(objects: ClusterObjects, kind: str, name: str) -> None:
    """What a deployment left that was killed: its pod may hold the accelerator that this one needs."""
    live = objects.read(kind, name)
    if live is None:
        return
    if not _is_candidate(live):
        raise DeploymentError(
            f"{kind} {objects.namespace}/{name} exists, and is no candidate of ivcp's: a new model is checked under "
            "this name before it serves. Rename yours, or choose another serve_name"
        )
    log.info("%s %s is left from a deployment that was killed: it is removed", kind, name)
    objects.delete(kind, name, uid=live["metadata"]["uid"])


def _is_candidate(live: Manifest) -> bool:
    """Whether `ivcp` made an object to check a model: one without the label may serve by this name."""
    is_labelled = live["metadata"].get("labels", {}).get(_TRACK_LABEL) == _CANDIDATE
    return is_labelled and applied_by(FIELD_MANAGER, live) is not None


def _relabelled(value: Any, labels: dict[str, str], own: dict[str, str]) -> Any:
    """A copy in which everything that has or selects `labels` has or selects the candidate's."""
    if isinstance(value, list):
        return [_relabelled(inner, labels, own) for inner in value]
    if not isinstance(value, dict):
        return copy.deepcopy(value)
    changed = {key: _relabelled(inner, labels, own) for key, inner in value.items()}
    return changed | {key: own[key] for key in own if key in value and value[key] == labels.get(key)}
