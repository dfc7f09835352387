"""Settings of the protocol: how often a recipe is trained, on which splits, and in how many views it is measured."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ivcp.settings.sections.section import Section, as_names


class ProtocolConfig(Section):
    """How a figure is measured: once, or several times as one result (`ivcp run`)."""

    folds: int | None = Field(None, ge=2)
    """Divide the groups of `dataset` into this many folds, every class evenly, and train as many models: each clip is
    tested once, by a model that has seen nothing of its group. One result of all of them; none is exported. For data
    that are too few for a test split. Exclusive with `test_size` and `test_dataset`."""
    fold: int | None = Field(None, ge=1)
    """Which one of the folds is tested, from 1. `ivcp run` sets it, and `ivcp train` takes it."""
    seeds: int | None = Field(None, ge=2)
    """Train with this many seeds, `seed` and those behind it, on the same splits: one result, the mean and its spread.
    The model that does best on the validation split is exported."""
    split_seed: int | None = Field(None, ge=0)
    """Seed of what is drawn of the data: splits, folds, and `max_samples`. Null is `seed`."""
    official_splits: tuple[str, ...] = ()
    """Names of official splits, comma-separated: in place of `dataset` each of them is trained and measured, and the
    mean of all is the result; none is exported. `ucf101_1` stands for the data sets `ucf101_1_train` and
    `ucf101_1_test`, as `ivcp import` writes them, or for one whose rows name their split. UCF101 and HMDB51 have
    three."""
    test_num_clips: int = Field(1, ge=1)
    """Also measure test clips in so many temporal views, whose logits are averaged: each has as many frames, evenly
    spread, and they lie between those of the others. The frames are prepared with the test split."""
    test_num_crops: Literal[1, 3] = 1
    """3: also measure test clips in three square crops of each frame (left, middle, right, or top to bottom), whose
    logits are averaged: ThreeCrop. Frames that are square have one."""

    @field_validator("official_splits", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return as_names(value)

    @model_validator(mode="after")
    def _one_way_to_repeat(self) -> Self:
        asked = [key for key in ("folds", "seeds", "official_splits") if getattr(self, key)]
        if len(asked) > 1:
            raise ValueError(f"{' and '.join(asked)} exclude each other: one result has one kind of spread; keep one")
        if self.fold is not None and (self.folds is None or self.fold > self.folds):
            raise ValueError(f"fold = {self.fold} is none of folds = {self.folds}: `ivcp run` sets it; leave it out")
        if len(self.official_splits) == 1 or len(set(self.official_splits)) < len(self.official_splits):
            raise ValueError(
                f"official_splits = {','.join(self.official_splits)}: expected several data sets, each once; a single "
                "one is the dataset of a plain run"
            )
        return self

    @property
    def num_views(self) -> int:
        """Views of a test clip."""
        return self.test_num_clips * self.test_num_crops

    @property
    def repeats(self) -> bool:
        """Whether a run of these settings is several trainings."""
        return bool(self.seeds or self.official_splits or (self.folds and self.fold is None))
