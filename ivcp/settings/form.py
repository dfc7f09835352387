"""The settings that the form of Kubeflow Pipelines has a field for, and what that form says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from ivcp.settings.keys import KeyHelp, describe_keys
from ivcp.settings.run import SECTION_OF_KEY, SECTIONS
from ivcp.settings.words import read_value

PREFIX = "set_"
"""The page sorts fields by their names: with it they stand together, and before `settings`."""
FIELDS = (
    "dataset",
    "dataset_dir",
    "learning_rate",
    "min_top1_accuracy",
    "model_name_or_path",
    "num_train_epochs",
    "serve_target",
    "skip_unchanged",
    "test_dataset",
    "test_size",
    "train_accelerator_count",
)
"""What changes from run to run. All else is said in `settings` or `overrides`."""
HEADING = "Fine-tunes a video language model into an action classifier, and serves it when it is good enough."
SUMMARY = (
    f"{HEADING} A run needs a base model, data sets, the folder of their dataset_info.json, and clips to test with: "
    "in `settings` a YAML file as for LLaMA-Factory, or field by field, where `set_X` is the setting X. "
    "A field that is filled in wins over `settings`, and `overrides` over both."
)
"""Of the compiled pipeline: KFP asks for no more than 1024 characters there."""
CURRICULUM_HEADING = (
    "Trains a video language model in stages, each on the model of the one before, and serves the last one when it is "
    "good enough."
)
CURRICULUM_SUMMARY = (
    f"{CURRICULUM_HEADING} In `settings` a YAML file with a list `curriculum` of as many stages as the pipeline's name "
    "says, each with its settings; what stands beside the list is for all of them. `ivcp submit FILE` writes that text "
    "from a curriculum that names other files."
)
"""Of the compiled pipeline of a curriculum."""
OWN_PARAMETERS = {
    "deploy": "Deploy a model that passes the gate.",
    "overrides": 'Any settings by their keys, e.g. `{"lora_rank": 16}`. They win over all other fields.',
    "settings": (
        "A YAML file of LLaMA-Factory's keys, pasted as it is, or the `s3://` URI of one. What it does not say has its "
        "default: `ivcp config --help-keys` lists them."
    ),
}
"""Parameters of the pipeline that stand for no setting → what they mean, in Markdown."""


def read_fields(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of fields that are filled in, each read as the value of `key=value` on the command line.

    A field is text, and an empty one says nothing: the page starts no run while a field without a default is
    untouched, an optional one as well, and a default that is a number could not be told from a number that was meant.
    """
    filled = {key: parameters[PREFIX + key].strip() for key in FIELDS if PREFIX + key in parameters}
    return {key: read_value(key, text) for key, text in filled.items() if text}


def choices(parameter: str) -> tuple[str | bool, ...]:
    """What a parameter of the pipeline may be, where that is a short list; an empty field is one of them."""
    if parameter == "deploy":
        return (True, False)
    key = parameter.removeprefix(PREFIX)
    if not parameter.startswith(PREFIX) or key not in SECTION_OF_KEY:
        return ()
    kind = SECTIONS[SECTION_OF_KEY[key]].model_fields[key].annotation
    if kind is bool:
        return ("", "true", "false")
    listed = next((part for part in (kind, *get_args(kind)) if get_origin(part) is Literal), None)  # perhaps or null
    return ("", *get_args(listed)) if listed else ()


def describe_parameters() -> dict[str, str]:
    """Each parameter of the pipeline in the page's order, with its meaning in Markdown."""
    meanings = {PREFIX + described.key: _meaning(described) for described in describe_keys() if described.key in FIELDS}
    return dict(sorted((OWN_PARAMETERS | meanings).items()))


def docstring() -> str:
    """A docstring for the pipeline's function, from which KFP takes the descriptions of the parameters."""
    return _docstring(HEADING, describe_parameters())


def curriculum_docstring() -> str:
    """The same for the pipeline of a curriculum, which has no fields of single settings."""
    return _docstring(CURRICULUM_HEADING, OWN_PARAMETERS)


def description(stages: int = 1) -> str:
    """The pipeline's description, in Markdown: the page shows it beside the picture, its form shows no help.

    It travels in the URL of an upload, for which proxies allow a few thousand characters. With several `stages` it is
    that of a curriculum's pipeline.
    """
    summary, parameters = (SUMMARY, describe_parameters()) if stages == 1 else (CURRICULUM_SUMMARY, OWN_PARAMETERS)
    lines = [f"- **{name}**: {meaning}" for name, meaning in parameters.items()]
    return "\n".join([summary, "", *lines, ""])


def _docstring(heading: str, parameters: Mapping[str, str]) -> str:
    lines = [f"    {name}: {meaning}" for name, meaning in parameters.items()]
    return "\n".join([heading, "", "Args:", *lines, ""])


def _meaning(described: KeyHelp) -> str:
    listed = choices(PREFIX + described.key)
    values = f" One of `{'`, `'.join(map(str, listed[1:]))}`." if listed else ""
    default = described.default.strip('"')
    return f"{described.meaning}{values}" + (f" Default: `{default}`." if default not in ("null", "[]") else "")
