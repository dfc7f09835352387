"""Makes torchvision importable beside a torch build that lacks its compiled operators."""

import importlib.util

import torch

_MISSING_OPERATORS = ("torchvision::nms", "torchvision::qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def register_missing_operators() -> None:
    """Register the schemas of the operators that torchvision names while it is imported.

    transformers' video processors need torchvision and have no other path. PyPI's torchvision is built
    against a CUDA torch: beside a CPU-only torch its compiled library does not load, and the import ends with
    "operator torchvision::nms does not exist", because Python code registers fake kernels for operators that
    nobody defined. The transforms that video processors use are pure Python, so the schemas are enough.

    Call this before anything imports torchvision (``transformers.Trainer`` and ``AutoProcessor`` do). Does
    nothing when torchvision's own library defines the operators (a matching pair), when torchvision is not
    installed, and when called again. Detection operators stay unusable: calling one raises torch's
    NotImplementedError.
    """
    if importlib.util.find_spec("torchvision") is None or _operators_load():
        return
    for operator in _MISSING_OPERATORS:
        torch.library.define(operator, _SCHEMA)


def _operators_load() -> bool:
    """Whether importing torchvision, as it is installed here, defines its operators."""
    try:
        import torchvision  # noqa: F401
    except (RuntimeError, OSError):
        return False
    return True
