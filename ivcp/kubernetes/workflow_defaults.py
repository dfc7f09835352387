"""What a cluster's Argo merges into every step of every run, where somebody may look."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import yaml

from ivcp.kubernetes import api

log = logging.getLogger(__name__)

_CONFIG_MAP = "/api/v1/namespaces/{}/configmaps/workflow-controller-configmap"
_SECONDS = (1.0, 3.0)


def warn_of_retries(namespace: str = "kubeflow") -> None:
    """Warns where steps that fail are not tried again; silent where the current context cannot tell.

    A `retryPolicy` in Argo's defaults is merged into the retries that the pipeline asks for. KFP 2.17 comes with
    `OnError`: then only a lost node is a reason to try again, and a step that exits with an error is not.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        answer = api.connect().call_api(
            _CONFIG_MAP.format(namespace),
            "GET",
            auth_settings=["BearerToken"],
            response_type="object",
            _return_http_data_only=True,
            _request_timeout=_SECONDS,
        )
        policies = set(_retry_policies([yaml.safe_load(text) for text in (answer.get("data") or {}).values()]))
    except (api.KubernetesError, ApiException, HTTPError, OSError, yaml.YAMLError) as error:
        log.debug("Argo's defaults cannot be read: %s", error)
        return
    if policies & {"OnError", "OnTransientError"}:
        log.warning(
            "this cluster's Argo tries a failing step once: workflow-controller-configmap in namespace %s has the "
            "retryPolicy %s in its workflowDefaults, which is merged into the pipeline's retries; an administrator "
            "sets Always there (docs/submitting.md)",
            namespace,
            ", ".join(sorted(policies)),
        )


def _retry_policies(value: Any) -> Iterator[str]:
    """All values of `retryPolicy` in a document."""
    if isinstance(value, list):
        for entry in value:
            yield from _retry_policies(entry)
    elif isinstance(value, dict):
        for key, entry in value.items():
            if key == "retryPolicy" and isinstance(entry, str):
                yield entry
            yield from _retry_policies(entry)
