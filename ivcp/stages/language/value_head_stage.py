"""What the stages share that put a value head on the language model: `rm` and `ppo`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ivcp.stages.language.stage import LanguageStage
from ivcp.stages.protocol import Part

if TYPE_CHECKING:
    from torch import Tensor

    from ivcp.models.backbone import BackboneModule


@dataclass(frozen=True)
class ValueHeadStage(LanguageStage):
    """A stage with a value head, in the optimizer and in every directory."""

    head_has_bias: ClassVar[bool] = False
    """Whether the head learns one; the file has it in any case."""

    @property
    def parts(self) -> Mapping[str, Part]:
        """The value head."""
        return {"value_head": Part(self.config.train.learning_rate)}

    @property
    def files(self) -> tuple[str, ...]:
        """The value head."""
        from ivcp.stages.language.value_head import VALUE_HEAD_FILE

        return (VALUE_HEAD_FILE,)

    def save(self, directory: Path, module: BackboneModule, weights: Mapping[str, Tensor]) -> None:
        """Writes the value head."""
        from ivcp.stages.language.value_head import save_value_head

        save_value_head(directory, weights)

    def read_weights(self, directory: Path, module: BackboneModule) -> dict[str, Tensor]:
        """The value head's weights."""
        from ivcp.stages.language.value_head import read_value_head

        return read_value_head(directory, has_bias=self.head_has_bias)
