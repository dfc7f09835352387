"""The models of one server by name: who answers a request, and how they come and go while it answers."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from ivcp.serving.http.problems import ProblemError
from ivcp.serving.served import Served

ServedT = TypeVar("ServedT", bound=Served)

_ROUNDING = 1e-9
"""By which shares like 0.1 + 0.2 + 0.7 may come to more than 1."""


@dataclass
class _Slot(Generic[ServedT]):
    """A name under which a model answers."""

    model: ServedT
    share: float
    users: int = 0
    is_retired: bool = False


class ServedModels(Generic[ServedT]):
    """One of them, the first, answers what names no model, but for the shares of others."""

    def __init__(self, first: str) -> None:
        """`first` is the name of the first one, which is put in later."""
        self.first = first
        self._slots: dict[str, _Slot[ServedT]] = {}
        self._coming: dict[str, float] = {}
        """The shares of models that are being loaded, by name."""

    def __iter__(self) -> Iterator[ServedT]:
        """Those that are loaded, the first one first."""
        return iter([slot.model for slot in list(self._slots.values())])

    @property
    def has_first(self) -> bool:
        """Whether the first one is loaded."""
        return self.first in self._slots

    @contextmanager
    def coming(self, name: str, share: float) -> Iterator[None]:
        """Inside, a model is being loaded under that name, and has its share.

        Raises:
            ProblemError: somebody loads one of this name, or the shares come to more than 1.
        """
        if name in self._coming:
            raise ProblemError("not_ready", f"a model is being loaded as {name}: wait for it")
        self._check_share(name, share)
        self._coming[name] = share
        try:
            yield
        finally:
            del self._coming[name]

    def put(self, name: str, model: ServedT, share: float) -> None:
        """Gives a model its name; what had it is unloaded when its requests are answered."""
        earlier, self._slots[name] = self._slots.get(name), _Slot(model, share)
        if earlier is not None:
            _retire(earlier)

    def remove(self, name: str) -> None:
        """Unloads a model when its requests are answered.

        Raises:
            ProblemError: there is none of this name, or it is the first one.
        """
        if name == self.first:
            raise ProblemError(
                "bad_request_fields", f"{name} is the model that requests are answered by: replace it instead"
            )
        if name not in self._slots:
            raise self._unknown(name)
        _retire(self._slots.pop(name))

    @contextmanager
    def using(self, name: str | None) -> Iterator[ServedT]:
        """Inside, the model of that name stays loaded; null is the first one, or one that has a share of its requests.

        Raises:
            ProblemError: it is not loaded.
        """
        name = self._drawn() if name is None else name
        slot = self._slots.get(name)
        if slot is None:
            raise self._unknown(name)
        slot.users += 1
        try:
            yield slot.model
        finally:
            slot.users -= 1
            _close_if_unused(slot)

    def share_of(self, name: str) -> float:
        """The part of the requests without a model's name that it answers."""
        others = sum(slot.share for key, slot in self._slots.items() if key != self.first)
        return max(0.0, 1.0 - others) if name == self.first else self._slots[name].share

    def close(self) -> None:
        """Answers what was accepted, and unloads all."""
        slots, self._slots = list(self._slots.values()), {}
        for slot in slots:
            slot.model.close()

    def _check_share(self, name: str, share: float) -> None:
        if name == self.first:
            if share:
                raise ProblemError("bad_request_fields", f"share: {name} has what the other models leave: leave it out")
            return
        shares = {key: slot.share for key, slot in self._slots.items()} | self._coming
        others = {key: taken for key, taken in shares.items() if taken and key != name}
        if sum(others.values()) + share > 1 + _ROUNDING:
            taken = ", ".join(f"{key} has {taken:g}" for key, taken in others.items())
            raise ProblemError("bad_request_fields", f"share: {share:g} is more than there is left: {taken}")

    def _drawn(self) -> str:
        drawn = random.random()
        for name, slot in self._slots.items():
            if name != self.first:
                drawn -= slot.share
                if drawn < 0:
                    return name
        return self.first

    def _unknown(self, name: str) -> ProblemError:
        names = ", ".join(sorted(self._slots))
        return ProblemError("model_not_found", f"there is no model {name[:100]!r}: loaded are {names}")


def _retire(slot: _Slot[ServedT]) -> None:
    slot.is_retired = True
    _close_if_unused(slot)


def _close_if_unused(slot: _Slot[ServedT]) -> None:
    if slot.is_retired and slot.users == 0:
        threading.Thread(target=slot.model.close, name="unload-model", daemon=True).start()
