"""A tiny base model, and clips that it is asked about."""

from dataclasses import dataclass
from typing import Any

from ivcp.data.prepared.sample import Sample
from ivcp.models.processor import Processor


@dataclass(frozen=True)
class Tiny:
    base: Any
    processor: Processor
    samples: list[Sample]
