"""How long a run may take and how long Kubernetes keeps it: fields of the compiled pipeline that KFP 2.17 knows.

An older server refuses a pipeline that has one of them; without a limit the compiled pipeline has none. Of kfp's
`PipelineConfig` the workspace is left out: a volume that all steps of a run share binds them to one node, or needs one
that many nodes write to, and they exchange their files through S3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

RELEASE = (2, 17)
_HOUR, _LONGEST_SECONDS = 3600, 2**31 - 1


class LimitsError(ValueError):
    """A limit is no number of hours, or the server is too old for one."""


@dataclass(frozen=True)
class RunLimits:
    """Limits of every run of a compiled pipeline, in hours; null sets none."""

    keep_succeeded_hours: float | None = None
    """Until Kubernetes forgets a run that succeeded: its Workflow and pods. KFP and MLflow keep what they have."""
    keep_failed_hours: float | None = None
    """Until it forgets one that failed, with the logs of its pods."""
    deadline_hours: float | None = None
    """Until a run that goes on is terminated. A schedule starts no other run as long as one hangs."""

    def __post_init__(self) -> None:
        """Raises:
        LimitsError: a limit is no time, shorter than a second, or more than KFP's number holds.
        """
        for name, hours in vars(self).items():
            if hours is not None and not 1 <= hours * _HOUR <= _LONGEST_SECONDS:
                option = f"--{name.removesuffix('_hours').replace('_', '-')}"
                raise LimitsError(
                    f"{option} {hours:g}: expected hours above 0, at most {_LONGEST_SECONDS // _HOUR}; leave it out "
                    "for no limit"
                )

    @property
    def fields(self) -> dict[str, int]:
        """Those of KFP's message PipelineConfig, in seconds."""
        hours = {
            "resourceTtlOnSuccess": self.keep_succeeded_hours,
            "resourceTtlOnFailure": self.keep_failed_hours,
            "activeDeadlineSeconds": self.deadline_hours,
        }
        return {name: round(value * _HOUR) for name, value in hours.items() if value is not None}

    def apply(self, pipeline: Any) -> Any:
        """Gives a pipeline of kfp's the limits; returns it.

        A loaded pipeline is one object for all who compile it: limits of an earlier call are replaced.
        """
        settings = pipeline.platform_spec.platforms["kubernetes"]
        settings.ClearField("pipelineConfig")
        if self.fields:
            json_format.ParseDict({"pipelineConfig": self.fields}, settings)
        return pipeline

    def check(self, release: tuple[int, int] | None) -> None:
        """Raises:
        LimitsError: a server of this release does not know them; null is a server that does not say.
        """
        if self.fields and release is not None and release < RELEASE:
            raise LimitsError(
                f"the server is Kubeflow Pipelines {release[0]}.{release[1]}: --keep-succeeded, --keep-failed and "
                f"--deadline need {RELEASE[0]}.{RELEASE[1]}; leave them out"
            )


NO_LIMITS = RunLimits()
"""What servers before 2.17 know."""
