"""What the label of a clip is: a class, several classes, a class of each of several heads, or a number."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ivcp.records.record import Record

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
"""transformers' words."""
SINGLE_LABEL: ProblemType = "single_label_classification"
MULTI_LABEL: ProblemType = "multi_label_classification"
REGRESSION: ProblemType = "regression"

TargetKind = Literal["class", "classes", "heads", "value"]
"""One class; any number of classes at once; one class of each head; a number."""

HEAD_MARK = ": "
"""Between the name of a head and that of its class."""


class Head(Record):
    """One of several questions that a model answers about a clip, each with one class."""

    name: str = Field(min_length=1)
    label_names: tuple[str, ...] = Field(min_length=2)
    """Class names; the position is the label."""

    @model_validator(mode="after")
    def _unique(self) -> Self:
        if len(set(self.label_names)) != len(self.label_names):
            raise ValueError(f"head {self.name} holds a class name twice")
        return self

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.label_names)


class TargetScale(Record):
    """How numbers are made comparable for training: (value - mean) / std, both of the training clips."""

    mean: float
    std: float = Field(gt=0)

    def restored(self, output: float) -> float:
        """The value that an output of the model stands for."""
        return self.mean + self.std * output


def head_names(heads: tuple[Head, ...]) -> tuple[str, ...]:
    """A name for each class of each head, in the order of the model's outputs."""
    return tuple(f"{head.name}{HEAD_MARK}{name}" for head in heads for name in head.label_names)
