"""Settings of what a model writes when it is measured."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ivcp.settings.sections.section import Section


class GenerationConfig(Section):
    """How the language stages' models write their answers."""

    predict_with_generate: bool = False
    """Also write an answer to each prompt of the split that is measured, and compare it with the row's own."""
    do_predict: bool = False
    """Measure when the training ends, as `do_eval` does (language stages); `ivcp evaluate` measures in any case."""
    do_sample: bool = True
    """Draw each token; false takes the likeliest one, so that the answers are the same every time."""
    temperature: float = Field(0.95, gt=0)
    """What logits are divided by before a token is drawn: less is surer."""
    top_p: float = Field(0.7, gt=0, le=1)
    """Draw among the likeliest tokens that have this share of the probability together."""
    top_k: int = Field(50, ge=0)
    """Draw among so many of the likeliest tokens; 0 is all."""
    num_beams: int = Field(1, ge=1)
    """Answers that are tried side by side, of which the likeliest is taken."""
    max_new_tokens: int = Field(1024, ge=1)
    """Tokens of an answer at most: it is cut there."""
    repetition_penalty: float = Field(1.0, gt=0)
    """What makes tokens less likely that were written or read before; 1 does not."""
    length_penalty: float = 1.0
    """Above 0, beams prefer longer answers, below 0 shorter ones (`num_beams` above 1)."""
    skip_special_tokens: bool = True
    """Leave special tokens out of written answers and of those they are compared with."""

    @model_validator(mode="after")
    def _beams_are_penalised(self) -> Self:
        if self.length_penalty != 1 and self.num_beams == 1:
            raise ValueError(
                f"length_penalty = {self.length_penalty:g} compares beams, and num_beams = 1: set num_beams: 4, or "
                "remove length_penalty"
            )
        return self
