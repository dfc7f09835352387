"""One deployment of the model at a URI, as the pipeline's serving step makes it: `python -m tests.e2e.deploy …`.

    python -m tests.e2e.deploy NAMESPACE NAME VERSION URI IMAGE PROXY [--take-over]

PROXY is the address of `kubectl proxy`. Exit codes: 0 it serves; 1 it was refused or failed, and says why.
"""

import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from ivcp.deployment.on_cluster import deploy_cluster
from ivcp.deployment.predictor_manifests import ServedModel
from ivcp.settings import from_flat


def main() -> None:
    namespace, name, version, uri, image, proxy, *options = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)
    settings = {
        "serve_target": "cluster",
        "serve_namespace": namespace,
        "serve_name": name,
        "serve_timeout_seconds": 600.0,
        "serve_url": f"{proxy}/api/v1/namespaces/{namespace}/services/{name}:http/proxy",
        "serve_take_over": "--take-over" in options,
        "models_uri": uri,
        "report_to": "none",
    }
    model = ServedModel(uri=uri, name=name, version=int(version), run_id=None, top1_accuracy=0.5)
    with TemporaryDirectory() as folder:
        here = Path(folder)
        deploy_cluster(from_flat(settings), image=image, model=model, model_dir=here, smoke_clip=None, output_dir=here)


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
