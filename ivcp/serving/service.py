"""The models of one server, its decoders and its files: what all routes share."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ivcp.records.answers import ModelIdentity
from ivcp.serving.decoding import Decoders, ModelFiles
from ivcp.serving.http.admission import Load
from ivcp.serving.http.problems import ProblemError
from ivcp.serving.http.timings import current_timings
from ivcp.serving.predictor import Predictor
from ivcp.serving.remote_videos import fetch
from ivcp.serving.served_model import ServedModel
from ivcp.serving.settings import ServerSettings
from ivcp.serving.uploads import UploadFolder
from ivcp.serving.warm_up import warm_up
from ivcp.stages.directory import check_complete
from ivcp.video import VideoError

log = logging.getLogger(__name__)

_ROUNDING = 1e-9
"""By which shares like 0.1 + 0.2 + 0.7 may come to more than 1."""


@dataclass
class _Slot:
    """A name under which a model answers."""

    model: ServedModel
    share: float
    users: int = 0
    is_retired: bool = False


class Service:
    """Loads the first model in the background while the server already answers; others come and go by name."""

    def __init__(self, predictor: Predictor, settings: ServerSettings) -> None:
        self.settings, self.load = settings, Load(settings)
        self._uri_rules = settings.uri_rules
        self.first = predictor
        self.failure: BaseException | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self._slots: dict[str, _Slot] = {}
        self._decoders: Decoders | None = None
        self._uploads: UploadFolder | None = None
        self._generation, self._lock = 0, threading.Lock()
        self._loading: dict[str, float] = {}
        """The shares of the models that are being loaded, by name."""

    @property
    def uploads(self) -> UploadFolder:
        """Where the files of requests lie.

        Raises:
            ProblemError: the server has not begun.
        """
        if self._uploads is None:
            raise ProblemError("loading", "the model is still loading: wait until /readyz answers 200")
        return self._uploads

    @property
    def decoders(self) -> Decoders:
        """The processes that decode.

        Raises:
            ProblemError: they have not been started.
        """
        if self._decoders is None:
            raise ProblemError("loading", "the model is still loading: wait until /readyz answers 200")
        return self._decoders

    @property
    def is_ready(self) -> bool:
        """Whether videos can be classified."""
        return self.state == "ready"

    @property
    def state(self) -> str:
        """What is said of the service: `ready`, or why it is not."""
        if self.failure is not None:
            return f"failed: {self.failure}"
        if self.load.is_draining:
            return "draining"
        if self._decoders is None or self.first.name not in self._slots:
            return "loading"
        failure = self._decoders.failure()
        return f"failed: {failure}" if failure else "ready"

    @property
    def reads_uris(self) -> bool:
        """Whether a request may name its video by a URI."""
        return self._uri_rules.allow_any

    @property
    def models(self) -> list[ServedModel]:
        """Those that are loaded, the first one first."""
        return [slot.model for slot in list(self._slots.values())]

    @property
    def num_waiting(self) -> int:
        """Decoded clips that wait for a model."""
        return sum(model.num_waiting for model in self.models)

    def identities(self) -> list[ModelIdentity]:
        """Of the models that are loaded."""
        return [model.predictor.identity for model in self.models]

    def start(self) -> None:
        """Begins to load.

        Raises:
            OSError: there is no place for uploads.
        """
        self._uploads = UploadFolder()
        threading.Thread(target=self._load_first, name="load-model", daemon=True).start()

    def stop(self) -> None:
        """Answers what was accepted, and ends the decoding processes."""
        decoders, self._decoders = self._decoders, None
        slots, self._slots = list(self._slots.values()), {}
        for slot in slots:
            slot.model.close()
        if decoders is not None:
            decoders.close()
        if self._uploads is not None:
            self._uploads.remove()

    @contextmanager
    def using(self, name: str | None) -> Iterator[ServedModel]:
        """Inside, the model of that name stays loaded; null is the first one, or one that has a share of its requests.

        Raises:
            ProblemError: it is not loaded.
        """
        slot = self._slot(name)
        slot.users += 1
        try:
            yield slot.model
        finally:
            slot.users -= 1
            self._close_if_unused(slot)

    async def put(self, name: str, uri: str, *, version: str | None, share: float) -> ServedModel:
        """Loads a model beside the others, or in place of the one of that name, which answers until then.

        Raises:
            ProblemError: it cannot be loaded, somebody loads one of this name, or the shares come to more than 1.
        """
        decoders = self.decoders
        if name in self._loading:
            raise ProblemError("not_ready", f"a model is being loaded as {name}: wait for it")
        self._check_share(name, share)
        self._loading[name] = share
        try:
            predictor = Predictor(uri, name=name, version=version, machine=self.first.machine)
            try:
                model = await asyncio.to_thread(lambda: self._loaded(predictor, decoders))
            except (ValueError, OSError, RuntimeError, VideoError) as error:
                raise ProblemError("bad_model", f"{name} cannot be loaded: {error}") from error
            earlier, self._slots[name] = self._slots.get(name), _Slot(model, share)
        finally:
            del self._loading[name]
        log.info("%s answers as %s, with %g of the requests that name no model", uri, name, share)
        if earlier is not None:
            earlier.is_retired = True
            self._close_if_unused(earlier)
        return model

    def remove(self, name: str) -> None:
        """Unloads a model when its requests are answered.

        Raises:
            ProblemError: there is none of this name, or it is the first one.
        """
        if name == self.first.name:
            raise ProblemError(
                "bad_request_fields", f"{name} is the model that requests are answered by: replace it instead"
            )
        slot = self._slots.pop(name, None)
        if slot is None:
            raise _no_model(name, self._slots)
        slot.is_retired = True
        self._close_if_unused(slot)

    def share_of(self, name: str) -> float:
        """The part of the requests without a model's name that it answers."""
        others = sum(slot.share for key, slot in self._slots.items() if key != self.first.name)
        return max(0.0, 1.0 - others) if name == self.first.name else self._slots[name].share

    async def fetch(self, uri: str, folder: Path) -> Path:
        """Downloads a video.

        Raises:
            ProblemError, UriError: this server may not read from there, or could not.
        """
        if not self.reads_uris:
            raise ProblemError(
                "uri_forbidden", "uri: this server reads no URIs (uri_hosts, uri_buckets): send the file"
            )
        path = folder / "video"
        await fetch(uri, path, rules=self._uri_rules, deadline=current_timings().deadline)
        return path

    def _slot(self, name: str | None) -> _Slot:
        if self.failure is not None or self.first.name not in self._slots:
            raise ProblemError("loading", "the model is still loading: wait until /readyz answers 200")
        if name is None:
            name = self._chosen()
        slot = self._slots.get(name)
        if slot is None:
            raise _no_model(name, self._slots)
        return slot

    def _chosen(self) -> str:
        drawn = random.random()
        for name, slot in self._slots.items():
            if name != self.first.name:
                drawn -= slot.share
                if drawn < 0:
                    return name
        return self.first.name

    def _check_share(self, name: str, share: float) -> None:
        if name == self.first.name:
            if share:
                raise ProblemError("bad_request_fields", f"share: {name} has what the other models leave: leave it out")
            return
        shares = {key: slot.share for key, slot in self._slots.items()} | self._loading
        others = {key: taken for key, taken in shares.items() if taken and key != name}
        if sum(others.values()) + share > 1 + _ROUNDING:
            taken = ", ".join(f"{key} has {taken:g}" for key, taken in others.items())
            raise ProblemError("bad_request_fields", f"share: {share:g} is more than there is left: {taken}")

    def _close_if_unused(self, slot: _Slot) -> None:
        if slot.is_retired and slot.users == 0:
            threading.Thread(target=slot.model.close, name="unload-model", daemon=True).start()

    def _loaded(self, predictor: Predictor, decoders: Decoders) -> ServedModel:
        """Loads a model and lets it answer once."""
        predictor.load()
        with self._lock:
            self._generation += 1
            generation = self._generation
        model = ServedModel(predictor, decoders, self.settings, generation=generation)
        try:
            decoders.warm(model.files).result()
            warm_up(model, self.uploads)
        except BaseException:
            model.close()
            raise
        return model

    def _load_first(self) -> None:
        try:
            model = self._load_with_decoders()
        except BaseException as error:  # the edge of a thread: `serve` raises it again
            self.failure = error
            is_explained = isinstance(error, ValueError | OSError)
            log.error("cannot load %s: %s", self.first.model_uri, error, exc_info=None if is_explained else error)
            self.on_failure()
        else:
            self._slots[self.first.name] = _Slot(model, 0.0)

    def _load_with_decoders(self) -> ServedModel:
        """Loads the model here while decoding processes start; both need its files, which are downloaded first."""
        model_dir = self.first.fetch()
        check_complete(model_dir)
        settings = self.settings
        decoders = Decoders(
            [ModelFiles(model_dir, self.first.machine.trust_remote_code)],
            num_workers=settings.num_decoders,
            timeout_seconds=settings.decode_timeout_seconds,
            memory_gigabytes=settings.decode_memory_gb,
        )
        try:
            started = decoders.start()
            self.first.load()
            for future in started:
                future.result()
            model = ServedModel(self.first, decoders, settings)
            try:
                warm_up(model, self.uploads)
            except (VideoError, RuntimeError, OSError, ValueError) as error:
                log.warning("%s did not answer the server's own clip: %s", self.first.model_uri, error)
        except BaseException:
            decoders.close()
            raise
        self._decoders = decoders
        return model


def _no_model(name: str, known: object) -> ProblemError:
    names = ", ".join(sorted(known)) if isinstance(known, dict) else ""
    return ProblemError("model_not_found", f"there is no model {name[:100]!r}: loaded are {names}")
