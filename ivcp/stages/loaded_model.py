"""A model that was read from its directory, ready to predict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ivcp.data.prepared.sample import Sample, Tokens
from ivcp.data.seen_clips import SeenClips
from ivcp.inference.compute import Compute
from ivcp.inference.loop import Samples, run_batches
from ivcp.models.backbone import BackboneModule, language_model_of
from ivcp.models.graphs.batches import BySize
from ivcp.models.graphs.run import Graph
from ivcp.models.positions import RopePositions
from ivcp.models.processor import Processor
from ivcp.models.sampled import SampledVideo
from ivcp.records import Labels, Message
from ivcp.records.calibration import Calibration
from ivcp.records.thresholds import Thresholds
from ivcp.settings import RunConfig
from ivcp.stages.model_info import ModelInfo
from ivcp.stages.protocol import Collate, Stage

_USUAL_THRESHOLD = 0.5


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to predict, with all that its inputs depend on."""

    stage: Stage
    module: BackboneModule
    processor: Processor
    info: ModelInfo
    directory: Path
    computes_as_trained: bool = True
    """Whether it computes in the precision of its training, as validation did; else in that of its weights."""
    calibration: Calibration | None = None
    """What its directory says of its confidence; null where evaluation has fitted none."""
    thresholds: Thresholds | None = None
    """From which probability on its classes are shown, where a clip may show several and evaluation has fitted some."""
    graph: Graph | None = None
    """What computes the logits in place of `module`, which has no weights then."""

    @property
    def config(self) -> RunConfig:
        """What the model means; settings of a machine have their defaults."""
        return self.stage.config

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The conversation that is used when none is given."""
        return self.info.prompt

    def asking(self, prompt: str | None) -> LoadedModel:
        """The model with another prompt for the user's turn; null is its own.

        Raises:
            PromptError: `prompt` has `<video>` or a special token twice, or in the wrong order.
        """
        if prompt is None:
            return self
        system = [message for message in self.prompt if message.role == "system"]
        asked = self.stage.ask(prompt, system=system)
        return replace(self, info=self.info.model_copy(update={"prompt": asked}))

    @property
    def compute(self) -> Compute:
        """Where and in which precision it computes."""
        if self.graph:
            return Compute(torch.device("cpu"))
        device = next(self.module.parameters()).device
        return Compute.as_trained(self.config.train, device) if self.computes_as_trained else Compute(device)

    @property
    def precision(self) -> str:
        """What it computes in, in a few words: "float32", "bfloat16", "bfloat16, 4-bit weights"."""
        if self.graph:
            return self.graph.precision
        dtype = self.compute.autocast_dtype or next(self.module.backbone.parameters()).dtype
        bits = getattr(self.module.backbone.config, "quantization_config", None) and self.config.method.quantization_bit
        return str(dtype).removeprefix("torch.") + (f", {bits}-bit weights" if bits else "")

    @cached_property
    def labels(self) -> Labels:
        """The classes of its outputs.

        Raises:
            ModelFilesError: its outputs are no classes.
        """
        return self.stage.labels(self.module)

    @cached_property
    def seen(self) -> SeenClips:
        """The clips that it was trained on and chosen by."""
        return SeenClips.of_directory(self.directory)

    def tokenize(self, messages: Sequence[Message], videos: Sequence[SampledVideo]) -> Tokens:
        """A conversation with its videos as the model reads it."""
        return self.stage.tokenize(self.processor, messages, videos)

    def predict(
        self, samples: Samples, batches: Iterable[Sequence[int]], *, num_workers: int = 0
    ) -> Iterator[tuple[torch.Tensor, Sequence[Sample]]]:
        """Of each batch: the module's logits, (batch, outputs), float32 on the CPU, and its samples without pixels."""
        return run_batches(
            samples,
            lambda batch: (self._logits(batch["inputs"]), batch["samples"]),
            collate=_KeepSamples(self._collate),
            batches=batches,
            compute=self.compute,
            num_workers=num_workers,
        )

    def _logits(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        if self.graph:
            return self.graph.logits(inputs)
        logits: torch.Tensor = self.module(**inputs).logits.float().cpu()
        return logits

    def outputs(self, samples: Sequence[Sample]) -> torch.Tensor:
        """The logits of one batch, (len(samples), outputs), float32 on the CPU; without the cost of a loader."""
        with torch.no_grad(), self.compute.autocast():
            return self._logits(self.compute.to_device(self._collate(samples)))

    @cached_property
    def _collate(self) -> Collate:
        positions = RopePositions.of(language_model_of(self.module.backbone)) if self.graph else None
        collate = self.stage.collator(self.module, self.processor, positions=positions, training=False)
        return BySize(collate) if self.graph else collate

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """The calibrated probabilities of logits, over the last dimension, float64 on the logits' device.

        Of several classes at once each has its own, of heads those of each add up to 1; a number has none.
        """
        match self.labels.kind:
            case "classes":
                return logits.double().sigmoid()
            case "heads":
                outputs = self.labels.outputs_of_heads
                return torch.cat([logits[..., each].double().softmax(dim=-1) for each in outputs], dim=-1)
            case "value":
                return logits.double()[..., :0]
        temperature = self.calibration.temperature if self.calibration else 1.0
        return (logits.double() / temperature).softmax(dim=-1)

    @property
    def shown_from(self) -> tuple[float, ...]:
        """The probability from which on each class is shown, where a clip may show several."""
        return self.thresholds.thresholds if self.thresholds else (_USUAL_THRESHOLD,) * self.labels.num_classes

    def is_unsure(self, confidence: float) -> bool | None:
        """Whether an answer with this calibrated probability is unsure; null where no threshold is known."""
        return self.calibration.is_unsure(confidence) if self.calibration else None


@dataclass(frozen=True)
class _KeepSamples:
    """Collates, and hands the samples on beside the batch, without what is large in them."""

    collate: Collate

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {"inputs": self.collate(samples), "samples": [sample.without_pixels() for sample in samples]}
