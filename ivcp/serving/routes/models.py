"""Several models in one server, for operators: a canary can live beside what serves, and replace it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from ivcp.serving.routes.openapi import ON_EVERY_ROUTE, problems
from ivcp.serving.service import ClassifierService

Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._]{0,99}$")]


class ModelToLoad(BaseModel):
    """Which model is loaded under a name."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    uri: str = Field(min_length=1, max_length=4096)
    """A path or an s3:// URI of a model directory, or of an adapter directory."""
    version: str | None = Field(None, max_length=200)
    """What answers call it."""
    share: float = Field(0.0, ge=0, le=1)
    """The part of the requests that name no model which it answers; the default model has what others leave."""


class LoadedModelRow(BaseModel):
    """One model of the server."""

    name: str
    version: str | None
    uri: str
    is_default: bool
    share: float
    """The part of the requests that name no model which it answers."""


class LoadedModels(BaseModel):
    """All of them."""

    models: list[LoadedModelRow]


def routes(service: ClassifierService) -> APIRouter:
    """Of `/v1/models`."""
    router = APIRouter(tags=["models"])

    def rows() -> LoadedModels:
        return LoadedModels(
            models=[
                LoadedModelRow(
                    name=model.predictor.name,
                    version=model.predictor.version,
                    uri=str(model.predictor.model_uri),
                    is_default=model.predictor.name == service.first.name,
                    share=service.models.share_of(model.predictor.name),
                )
                for model in service.models
            ]
        )

    @router.get("/v1/models", responses=ON_EVERY_ROUTE)
    async def models() -> LoadedModels:
        """The models that are loaded."""
        return rows()

    @router.put("/v1/models/{name}", responses={**ON_EVERY_ROUTE, **problems(400, 413, 422)})
    async def load(name: Name, body: ModelToLoad) -> LoadedModels:
        """Loads a model, and lets it answer once, before it takes the name; what had it answers until then."""
        await service.put(name, body.uri, version=body.version, share=body.share)
        return rows()

    @router.delete("/v1/models/{name}", responses={**ON_EVERY_ROUTE, **problems(404, 422)})
    async def unload(name: Name) -> LoadedModels:
        """Unloads a model when its requests are answered."""
        service.models.remove(name)
        return rows()

    return router
