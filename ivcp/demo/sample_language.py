"""The sample clips as language: the sentence that names the action, and what it is preferred to.

The same clips, splits and groups as for classification, in the formats of `sft` and `dpo`.
"""

from typing import Any

from ivcp.demo.actions import ACTIONS, REVERSED_PAIRS

_PARTNERS = {**dict(REVERSED_PAIRS), **{second: first for first, second in REVERSED_PAIRS}}


def captions_name(split: str) -> str:
    """The data set with a question and the right sentence for every clip of a split."""
    return f"sample_captions_{split}"


def pairs_name(split: str) -> str:
    """The data set that prefers the right sentence to that of the same motion run backwards."""
    return f"sample_pairs_{split}"


def caption_row(annotation: dict[str, Any], question: str) -> dict[str, Any]:
    """The row of a clip whose row for classification is ``annotation``."""
    return {
        "conversations": [
            {"from": "human", "value": f"<video>{question}"},
            {"from": "gpt", "value": ACTIONS[annotation["action_label"]].sentence},
        ],
        "videos": annotation["videos"],
        "group": annotation["group"],
    }


def pair_row(annotation: dict[str, Any], question: str) -> dict[str, Any] | None:
    """The same for the pairs; None for an action that is the same backwards."""
    partner = _PARTNERS.get(annotation["action_label"])
    if partner is None:
        return None
    row = caption_row(annotation, question)
    asked, right = row["conversations"]
    wrong = {"from": "gpt", "value": ACTIONS[partner].sentence}
    return {**row, "conversations": [asked], "chosen": right, "rejected": wrong}


def register_captions(split: str) -> dict[str, Any]:
    """The entry in ``dataset_info.json``."""
    columns = {"messages": "conversations", "videos": "videos"}
    return {"file_name": f"{captions_name(split)}.json", "formatting": "sharegpt", "columns": columns}


def register_pairs(split: str) -> dict[str, Any]:
    """The entry in ``dataset_info.json``."""
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "videos": "videos"}
    file_name = f"{pairs_name(split)}.json"
    return {"file_name": file_name, "formatting": "sharegpt", "ranking": True, "columns": columns}
