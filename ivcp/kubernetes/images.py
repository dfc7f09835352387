"""The container images of the steps: named here and nowhere else.

The environment decides when the pipeline is compiled: IVCP_REGISTRY and IVCP_TAG for all three, or IVCP_DATA_IMAGE,
IVCP_TRAINING_IMAGE and IVCP_SERVING_IMAGE for each, best as `registry/name@sha256:…`, since the cluster's cache looks
at this text and not at the image's content.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal, get_args

from ivcp.packages import VERSION

Name = Literal["data", "training", "serving"]
VARIABLES: dict[Name, str] = {name: f"IVCP_{name.upper()}_IMAGE" for name in get_args(Name)}


def image_reference(name: Name, environment: Mapping[str, str] = os.environ) -> str:
    """The image that the environment names, else `ivcp-<name>:<VERSION>`.

    Raises:
        ValueError: the reference has neither tag nor digest, or the tag `latest`: nobody could say what a run used.
    """
    registry = environment.get("IVCP_REGISTRY", "").rstrip("/")
    by_tag = f"{registry}{'/' if registry else ''}ivcp-{name}:{environment.get('IVCP_TAG') or VERSION}"
    variable = VARIABLES[name]
    reference = environment.get(variable) or by_tag
    _, _, tag = reference.rpartition("/")[2].partition(":")
    if not tag or tag == "latest":
        raise ValueError(
            f"the image {reference} has no tag that stays: name it with a version or a digest, in {variable} "
            "(registry/name:1.2 or registry/name@sha256:…) or in IVCP_TAG"
        )
    return reference


DATA = image_reference("data")
TRAINING = image_reference("training")
SERVING = image_reference("serving")
