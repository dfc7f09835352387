"""The models of one server, its decoders and its files: what all routes share."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from ivcp.records.answers import ModelIdentity
from ivcp.serving.decoding import Decoders, ModelFiles
from ivcp.serving.held_files import HeldFiles
from ivcp.serving.http.admission import Load
from ivcp.serving.http.problems import ProblemError
from ivcp.serving.http.timings import current_timings
from ivcp.serving.model_source import ModelSource
from ivcp.serving.predictor import Predictor
from ivcp.serving.remote_videos import fetch
from ivcp.serving.served import Served
from ivcp.serving.served_model import ServedModel
from ivcp.serving.served_models import ServedModels
from ivcp.serving.settings import ServerSettings
from ivcp.serving.uploads import UploadFolder
from ivcp.serving.warm_up import warm_up
from ivcp.video import VideoError

SourceT = TypeVar("SourceT", bound=ModelSource)
ServedT = TypeVar("ServedT", bound=Served)
GivenT = TypeVar("GivenT", bound=ModelSource, contravariant=True)
MadeT = TypeVar("MadeT", bound=Served, covariant=True)

log = logging.getLogger(__name__)


class Serve(Protocol[GivenT, MadeT]):
    """Makes a model that was loaded answer."""

    def __call__(
        self, source: GivenT, decoders: Decoders, settings: ServerSettings, /, *, held: HeldFiles, generation: int = 0
    ) -> MadeT:
        """`source` is loaded, `held` are its files since before that."""


class Service(Generic[SourceT, ServedT]):
    """Loads the first model in the background while the server already answers; others come and go by name."""

    def __init__(self, first: SourceT, settings: ServerSettings, serve: Serve[SourceT, ServedT]) -> None:
        self.settings, self.load = settings, Load(settings)
        self._uri_rules = settings.uri_rules
        self.first, self._serve = first, serve
        self.failure: BaseException | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self.models: ServedModels[ServedT] = ServedModels(first.name)
        self._decoders: Decoders | None = None
        self._uploads: UploadFolder | None = None
        self._generation, self._lock = 0, threading.Lock()
        self._puts: set[asyncio.Task[None]] = set()
        self._is_ending = False

    @property
    def uploads(self) -> UploadFolder:
        """Where the files of requests lie.

        Raises:
            ProblemError: the server has not begun.
        """
        if self._uploads is None:
            raise _loading()
        return self._uploads

    @property
    def decoders(self) -> Decoders:
        """The processes that decode.

        Raises:
            ProblemError: they have not been started.
        """
        if self._decoders is None:
            raise _loading()
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
        if self._decoders is None or not self.models.has_first:
            return "loading"
        with self.models.using(self.first.name) as model:
            failure = self._decoders.failure() or model.failure
        return f"failed: {failure}" if failure else "ready"

    @property
    def reads_uris(self) -> bool:
        """Whether a request may name its video by a URI."""
        return self._uri_rules.allow_any

    @property
    def num_waiting(self) -> int:
        """Decoded clips that wait for a model."""
        return sum(model.num_waiting for model in self.models)

    def identities(self) -> list[ModelIdentity]:
        """Of the models that are loaded."""
        return [model.source.identity for model in self.models]

    def start(self) -> None:
        """Begins to load.

        Raises:
            OSError: there is no place for uploads.
        """
        self._uploads = UploadFolder()
        threading.Thread(target=self._load_first, name="load-model", daemon=True).start()

    def stop(self) -> None:
        """Answers what was accepted, and ends the decoding processes."""
        self._is_ending = True
        decoders, self._decoders = self._decoders, None
        self.models.close()
        if decoders is not None:
            decoders.close()
        if self._uploads is not None:
            self._uploads.remove()

    @contextmanager
    def using(self, name: str | None) -> Iterator[ServedT]:
        """Inside, the model of that name stays loaded; null is the first one, or one that has a share of its requests.

        Raises:
            ProblemError: it is not loaded.
        """
        if self.failure is not None or not self.models.has_first:
            raise _loading()
        with self.models.using(name) as model:
            yield model

    async def put(self, name: str, uri: str, *, version: str | None, share: float) -> None:
        """Loads a model beside the others, or in place of the one of that name, which answers until then.

        That goes on where whoever asked for it does not wait any more.

        Raises:
            ProblemError: it cannot be loaded, somebody loads one of this name, or the shares come to more than 1.
        """
        decoders = self.decoders
        source = self.first.beside(uri, name=name, version=version)
        task = asyncio.create_task(self._put(source, decoders, share))
        self._puts.add(task)
        task.add_done_callback(self._puts.discard)
        await asyncio.shield(task)  # a large model may take longer than a request

    async def _put(self, source: SourceT, decoders: Decoders, share: float) -> None:
        name, uri = source.name, source.model_uri
        with self.models.coming(name, share):
            try:
                model = await asyncio.to_thread(lambda: self._loaded(source, decoders))
            except Exception as error:  # a directory that somebody else wrote: whatever its files make libraries raise
                log.warning("%s cannot be loaded as %s: %s", uri, name, error)
                raise ProblemError("bad_model", f"{name} cannot be loaded: {error}") from error
            self.models.put(name, model, share)
        log.info("%s answers as %s, with %g of the requests that name no model", uri, name, share)

    async def fetch(self, uri: str, folder: Path, *, count: Callable[[int], None]) -> Path:
        """Downloads a video; `count` is told of its bytes before they are written.

        Raises:
            ProblemError, UriError: this server may not read from there, or could not.
        """
        if not self.reads_uris:
            raise ProblemError(
                "uri_forbidden", "uri: this server reads no URIs (uri_hosts, uri_buckets): send the file"
            )
        path = folder / "video"
        await fetch(uri, path, rules=self._uri_rules, deadline=current_timings().deadline, count=count)
        return path

    def _loaded(self, source: SourceT, decoders: Decoders) -> ServedT:
        """Loads a model and lets it answer once."""
        held = self._held(source)
        try:
            source.load()
        except BaseException:
            held.release()
            raise
        with self._lock:
            self._generation += 1
            generation = self._generation
        model = self._serve(source, decoders, self.settings, held=held, generation=generation)
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
            if self._is_ending:  # the model is wanted by nobody any more
                return
            self.failure = error
            is_explained = isinstance(error, ValueError | OSError)
            log.error("cannot load %s: %s", self.first.model_uri, error, exc_info=None if is_explained else error)
            self.on_failure()
        else:
            self.models.put(self.first.name, model, share=0.0)

    def _held(self, source: SourceT) -> HeldFiles:
        """A model's files, which are downloaded and checked first."""
        model_dir = source.fetch()
        source.check(model_dir)
        held = HeldFiles(model_dir, into=self.uploads.path)
        source.describe(model_dir, held.directory)
        return held

    def _load_with_decoders(self) -> ServedT:
        """Loads the model here while decoding processes start; both need its files, which are downloaded first."""
        settings, held = self.settings, self._held(self.first)
        decoders = Decoders(
            [ModelFiles(held.directory, self.first.machine.trust_remote_code)],
            num_workers=settings.num_decoders,
            timeout_seconds=settings.decode_timeout_seconds,
            memory_gigabytes=settings.decode_memory_gb,
        )
        try:
            started = decoders.start()
            self.first.load()
            for future in started:
                future.result()
            model = self._serve(self.first, decoders, settings, held=held)
            try:
                warm_up(model, self.uploads)
            except (VideoError, RuntimeError, OSError, ValueError) as error:
                log.warning("%s did not answer the server's own clip: %s", self.first.model_uri, error)
        except BaseException:
            decoders.close()
            held.release()
            raise
        self._decoders = decoders
        return model


def _loading() -> ProblemError:
    return ProblemError("loading", "the model is still loading: wait until /readyz answers 200")


ClassifierService: TypeAlias = Service[Predictor, ServedModel]
AnyService: TypeAlias = Service[Any, Any]
