"""Whether the champion is still the one that a new model was measured against, when its turn to be promoted comes."""

from __future__ import annotations

from pathlib import Path

from ivcp.evaluation.champion import reaches
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.records.language_evaluation import Measured
from ivcp.records.registered import Champion, ModelVersionRef
from ivcp.settings import RunConfig
from ivcp.tracking import DEFAULT_STORE, find_champion


class ChampionMovedError(RuntimeError):
    """Another run has promoted a model since this one was measured, and the two were not compared."""


def check_champion(
    config: RunConfig, registered: ModelVersionRef, metrics: Measured, *, default_store: Path = DEFAULT_STORE
) -> None:
    """Checks that `registered`, with these metrics, may take the place of what is the champion now.

    It may where that is the version that evaluation compared it with, or itself; and where another classifier has come
    meanwhile, if its accuracy on the same test clips is recorded and not better by more than `champion_tolerance`.
    Without `compare_with_champion` anything may take its place.

    Raises:
        ChampionMovedError: it may not.
        RegistryError: the registry is away.
    """
    if not config.evaluation.compare_with_champion:
        return
    champion = find_champion(config, default_store=default_store)
    compared_with = metrics.champion.version if metrics.champion else None
    if champion is None or champion.version in (compared_with, registered.version):
        return
    if isinstance(metrics, EvaluationMetrics) and _is_not_worse(config, metrics, champion):
        return
    against = "no champion" if compared_with is None else f"version {compared_with}"
    raise ChampionMovedError(
        f"version {registered.version} of {registered.name} was compared with {against}, and version "
        f"{champion.version} became the {config.export.model_alias} meanwhile{_figures(metrics, champion)}: it stays. "
        f"Run the pipeline again, which compares with it; or promote this one all the same with `ivcp models promote "
        f"{registered.version}`"
    )


def _is_not_worse(config: RunConfig, metrics: EvaluationMetrics, champion: Champion) -> bool:
    theirs = champion.top1_accuracy
    if theirs is None or champion.test_fingerprint != metrics.test_fingerprint:
        return False
    return reaches(metrics.top1_accuracy, theirs - config.evaluation.champion_tolerance - 1e-9)


def _figures(metrics: Measured, champion: Champion) -> str:
    if not isinstance(metrics, EvaluationMetrics) or champion.top1_accuracy is None:
        return ""
    return f" (top-1 accuracy {champion.top1_accuracy:.3f}, this one {metrics.top1_accuracy:.3f})"
