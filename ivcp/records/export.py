"""What export made, as its `export_result.json` in the model directory says; the deployment reads it."""

from __future__ import annotations

from ivcp.records.record import Record
from ivcp.records.registered import ModelVersionRef

EXPORT_RESULT_FILE = "export_result.json"


class MergeCheck(Record):
    """How near the written model's logits are to those of base model and adapter."""

    clips: int
    max_logit_difference: float
    dtype: str


class ExportResult(Record):
    """What export did: `export_result.json` in the model directory."""

    model_dir: str
    """Where the step wrote it; `registered.source` is where it is read from."""
    merge: MergeCheck
    registered: ModelVersionRef
    run_id: str | None = None
    """The MLflow run; null where `report_to` does not name mlflow."""

    @property
    def summary(self) -> str:
        """The result in a few words."""
        version = self.registered
        return f"{version.name} v{version.version} ({version.alias}), |Δ logit| ≤ {self.merge.max_logit_difference:.1g}"
