"""The page at `/`: plain files of this package, which load nothing from anywhere else."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles

from ivcp.serving.http.access import PAGE_FILES

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # kept, but asked for each time: the files belong to this version of the server
}


def routes() -> APIRouter:
    """Of `/` and `/page/<file>`; they are no part of the API's description."""
    router = APIRouter(include_in_schema=False)
    files = StaticFiles(packages=[("ivcp.serving", "page")])

    async def send(name: str, request: Request) -> Response:
        response = await files.get_response(name, request.scope)
        response.headers.update(_HEADERS)
        return response

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        return await send("index.html", request)

    @router.api_route(f"{PAGE_FILES}{{name}}", methods=["GET", "HEAD"])
    async def file(name: str, request: Request) -> Response:
        return await send(name, request)

    return router
