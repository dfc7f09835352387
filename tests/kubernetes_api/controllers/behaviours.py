"""How pods fare: what a test says about the containers of an image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ready:
    """Starts, and becomes ready."""

    after_seconds: float = 0.05
    url: str | None = None
    """Address of the real process that answers for it."""
    log: str = "predictor: model loaded"


@dataclass(frozen=True)
class BadImage:
    """Its image cannot be pulled."""

    message: str = "manifest unknown"


@dataclass(frozen=True)
class CrashLoop:
    """Its process ends again and again."""

    log: str = "Traceback (most recent call last):\nRuntimeError: out of luck"
    exit_code: int = 1
    every_seconds: float = 0.05


@dataclass(frozen=True)
class NeverReady:
    """Runs, but its readiness probe fails."""

    message: str = "Readiness probe failed: HTTP probe failed with statuscode: 503"


@dataclass(frozen=True)
class Unschedulable:
    """No node has what it asks for."""

    message: str = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


Behaviour = Ready | BadImage | CrashLoop | NeverReady | Unschedulable
