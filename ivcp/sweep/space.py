"""What a sweep searches: settings with several values, or a range of them.

lora_rank=8,16,32               one of these
learning_rate=1e-5..1e-3:log    anything between, as likely in each decade
lora_dropout=0..0.2             anything between
lora_rank=4..64                 whole numbers, where the setting has only those
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from ivcp.settings import SECTION_OF_KEY, ConfigError, config_from_settings
from ivcp.settings.run import SECTIONS
from ivcp.settings.words import read_value, read_words

_RANGE = re.compile(r"(?P<low>[^,:]+?)\.\.(?P<high>[^,:]+?)(?::(?P<scale>log|linear))?")
_SEARCHED = frozenset({"method", "action_cls", "language", "train", "augmentation"})
"""Sections whose settings change a training and no prepared clip."""
_OF_THE_RUN = frozenset(
    {
        *("stage", "seed", "deepspeed", "fsdp", "metric_for_best_model", "eval_strategy", "eval_steps"),
        *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "run_name", "report_to", "plot_loss"),
        *("save_strategy", "save_steps", "save_total_limit", "load_best_model_at_end"),
    }
)
"""Settings of these that say what is trained, where and how, how it is compared, or that only draw other luck."""


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that have to be possible."""
        return self.values

    def __str__(self) -> str:
        """As on the command line."""
        return ",".join(map(str, self.values))


@dataclass(frozen=True)
class Range:
    """Any number between two, both included."""

    low: float
    high: float
    is_log: bool
    is_whole: bool

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that have to be possible."""
        return (int(self.low), int(self.high)) if self.is_whole else (self.low, self.high)

    def __str__(self) -> str:
        """As on the command line."""
        low, high = self.ends
        return f"{low}..{high}{':log' if self.is_log else ''}"


Space = Mapping[str, Choice | Range]
"""What is searched of each setting."""


def read_space(words: Sequence[str]) -> tuple[str | None, dict[str, Any], Space]:
    """The settings file of a command line, the settings that all trials have, and those that are searched.

    A list of names, as of `lora_target`, is one value.

    Raises:
        ConfigError: a range or its values cannot be used, or nothing is searched.
    """
    plain, searched = [], {}
    for word in words:
        key, _, value = word.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        found = _space_of(key, value) if key in SECTION_OF_KEY and value else None
        if found is None:
            plain.append(word)
        else:
            searched[key] = found
    file, settings = read_words(plain)
    if not searched:
        raise ConfigError(
            "nothing is searched: give settings several values, as learning_rate=1e-5..1e-3:log or lora_rank=8,16,32"
        )
    return file, settings, searched


def check_space(space: Space, settings: Mapping[str, Any]) -> None:
    """Checks that every value of a space can stand beside the other `settings`, and that no clip depends on one.

    Raises:
        ConfigError: names the setting, and what to do.
    """
    from ivcp.stages.registry import stage_of

    of_clips = stage_of(config_from_settings(settings)).data_settings
    for key, of_key in space.items():
        if SECTION_OF_KEY[key] not in _SEARCHED or key in _OF_THE_RUN or key in of_clips:
            raise ConfigError(
                f"{key} cannot be searched: all trials train on the same prepared clips, in the same place, and differ "
                "in how they train (rates, ranks, losses, epochs, augmentation); compare others in runs of their own"
            )
        first = {other: values.ends[0] for other, values in space.items() if other != key}
        for value in of_key.ends:
            config_from_settings({**settings, **first, key: value}, source=f"{key}={of_key}")


def _space_of(key: str, value: str) -> Choice | Range | None:
    """What a word searches; null where it names one value."""
    parts, found = value.split(","), _RANGE.fullmatch(value)
    if not (found or len(parts) > 1) or value.startswith("[") or _is_value(key, value):
        return None
    if found:
        return _range_of(key, found)
    if not all(part.strip() for part in parts):
        raise ConfigError(f"{key}={value} has a comma too many")
    values = tuple(_number(read_value(key, part)) for part in parts)
    if len(set(map(str, values))) < len(values):
        raise ConfigError(f"{key}={value} names a value twice: leave one out")
    return Choice(values)


def _range_of(key: str, found: re.Match[str]) -> Range:
    try:
        low, high = float(found["low"]), float(found["high"])
    except ValueError:
        raise ConfigError(f"{key}={found[0]}: a range has numbers at its ends, as 1e-5..1e-3") from None
    if not (low < high and math.isfinite(high - low)):
        raise ConfigError(f"{key}={found[0]}: a range begins with the smaller number, and both are finite")
    if found["scale"] == "log" and low <= 0:
        raise ConfigError(f"{key}={found[0]}: on a logarithmic scale a range begins above 0")
    kind = SECTIONS[SECTION_OF_KEY[key]].model_fields[key].annotation
    is_whole = _has(kind, int) and not _has(kind, float)
    if is_whole and not (low.is_integer() and high.is_integer()):
        raise ConfigError(f"{key}={found[0]}: {key} is a whole number, and so are the ends of a range of it")
    return Range(low, high, is_log=found["scale"] == "log", is_whole=is_whole)


def _has(annotation: Any, kind: type) -> bool:
    """Whether a setting may be of a type."""
    return annotation is kind or any(_has(part, kind) for part in get_args(annotation))


def _number(value: Any) -> Any:
    """YAML takes 1e-4 for text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _is_value(key: str, value: str) -> bool:
    """Whether a text is a value of a setting as it stands."""
    try:
        config_from_settings(read_words([f"{key}={value}"])[1])
    except ConfigError:
        return False
    return True
