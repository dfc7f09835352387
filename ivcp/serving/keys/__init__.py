"""API keys from files, and what each of them may: which routes, how often, how many requests at a time."""

from ivcp.serving.keys.files import KeyFilesError
from ivcp.serving.keys.limits import KeyLimits
from ivcp.serving.keys.names import KeyCode, KeyKind, KeyName, KeyRefusedError
from ivcp.serving.keys.ring import KeyRing

__all__ = ["KeyCode", "KeyFilesError", "KeyKind", "KeyLimits", "KeyName", "KeyRefusedError", "KeyRing"]
