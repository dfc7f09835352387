"""Whether an exported model is deployed by the step behind export; before that the champion's alias stays."""

from __future__ import annotations

from ivcp.settings import RunConfig
from ivcp.stages.registry import stage_of

_USUAL_NAME = RunConfig().serving.serve_name


def why_not_deployed(config: RunConfig) -> str | None:
    """Why the serving step deploys nothing of a run; null where it deploys.

    On a cluster another kind of model never takes the place of the classifiers that have the usual name.
    """
    stage, serving = stage_of(config), config.serving
    if stage.served_as is None:
        return f"the predictor does not know what stage {config.method.stage} gives"
    is_usual = serving.serve_target == "cluster" and serving.serve_name == _USUAL_NAME
    if is_usual and stage.served_as != "classifier":
        return (
            f"serve_name: {_USUAL_NAME} is where classifiers serve: give a {stage.title.lower()} a name of its own, "
            f"such as serve_name: ivcp-{config.method.stage}"
        )
    return None
