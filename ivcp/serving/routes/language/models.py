"""OpenAI's list of models."""

from __future__ import annotations

import time
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from ivcp.serving.routes.openapi import OF_A_MODEL, ON_EVERY_ROUTE
from ivcp.serving.service import AnyService


class ModelRow(BaseModel):
    """One model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """When the server began, in seconds since 1970."""
    owned_by: str = "ivcp"


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: tuple[ModelRow, ...]


def routes(service: AnyService) -> APIRouter:
    """Of `/v1/models`."""
    router, created = APIRouter(tags=["models"]), int(time.time())

    @router.get("/v1/models", responses=ON_EVERY_ROUTE)
    async def models() -> ModelList:
        """The models that answer."""
        return ModelList(data=tuple(ModelRow(id=model.source.name, created=created) for model in service.models))

    @router.get("/v1/models/{name}", responses=OF_A_MODEL)
    async def model(name: str) -> ModelRow:
        """One of them."""
        with service.using(name) as served:
            return ModelRow(id=served.source.name, created=created)

    return router
