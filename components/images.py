"""The container images of the steps: named here and nowhere else.

The environment decides at compile time: IVCP_DATA_IMAGE, IVCP_TRAINING_IMAGE and IVCP_SERVING_IMAGE, best as
`registry/name@sha256:…`, since the cluster's cache looks at this text and not at the image's content.
"""

from __future__ import annotations

import os

DATA = os.environ.get("IVCP_DATA_IMAGE", "ivcp-data:0.1.0")
TRAINING = os.environ.get("IVCP_TRAINING_IMAGE", "ivcp-training:0.1.0")
SERVING = os.environ.get("IVCP_SERVING_IMAGE", "ivcp-serving:0.1.0")
