"""Models in the registry."""

from __future__ import annotations

import math

from ivcp.records.record import Record

TOP1_TAG = "top1_accuracy"


TEST_FINGERPRINT_TAG = "test_fingerprint"


DEPLOYED_TAG = "deployed_to"
"""Where a version was put into service, as `ServingConfig.place` says it."""


PROMOTED_TAG = "promoted_at"
"""When a version became the champion the last time: UTC, as ISO 8601 writes it."""


class ModelVersionRef(Record):
    """A registered model version."""

    name: str
    version: int
    alias: str | None = None
    """Null while another version has it: until this one is deployed."""
    source: str
    """URI of the model directory."""


class RegisteredVersion(Record):
    """A version of a registered model, with all that the registry knows of it."""

    name: str
    version: int
    model_dir: str
    """Path or s3:// URI of the model directory."""
    tags: dict[str, str]
    """What was recorded at registration: metrics, fingerprints."""
    aliases: tuple[str, ...] = ()
    run_id: str | None = None
    """The MLflow run that made it; null where none was logged."""
    registered_at: str = ""
    """UTC, as ISO 8601 writes it."""

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

    @property
    def promoted_at(self) -> str | None:
        """When it became the champion the last time; null for never, or before that was noted."""
        return self.tags.get(PROMOTED_TAG)

    @property
    def figures(self) -> dict[str, float]:
        """What was measured when it was registered, by name."""
        named = {name for name in self.tags if not name.endswith("fingerprint")} - {"weights", PROMOTED_TAG}
        numbers = {name: self.recorded(name) for name in sorted(named)}
        return {name: value for name, value in numbers.items() if value is not None}


class Champion(RegisteredVersion):
    """The registered version that has the alias."""
