"""Models in the registry."""

from __future__ import annotations

import math

from ivcp.records.record import Record

TOP1_TAG = "top1_accuracy"


TEST_FINGERPRINT_TAG = "test_fingerprint"


DEPLOYED_TAG = "deployed_to"
"""Where a version was put into service, as `ServingConfig.place` says it."""


class ModelVersionRef(Record):
    """A registered model version."""

    name: str
    version: int
    alias: str | None = None
    """Null while another version has it: until this one is deployed."""
    source: str
    """URI of the model directory."""


class Champion(Record):
    """The registered version that has the alias."""

    name: str
    version: int
    model_dir: str
    """Path or s3:// URI of the model directory."""
    tags: dict[str, str]
    """What was recorded at registration: metrics, fingerprints."""
    run_id: str | None = None
    """The MLflow run that made it; null where none was logged."""

    @property
    def top1_accuracy(self) -> float | None:
        """The recorded accuracy of a classifier."""
        return self.recorded(TOP1_TAG)

    def recorded(self, metric: str) -> float | None:
        """A recorded figure; null for a version that was registered without it, or with one that is no number."""
        try:
            value = float(self.tags.get(metric, math.nan))
        except ValueError:  # anybody may edit a tag
            return None
        return value if math.isfinite(value) else None

    @property
    def test_fingerprint(self) -> str | None:
        """Which test split that accuracy is from."""
        return self.tags.get(TEST_FINGERPRINT_TAG)

    @property
    def deployed_to(self) -> str | None:
        """Where it was put into service; null for nowhere."""
        return self.tags.get(DEPLOYED_TAG)
