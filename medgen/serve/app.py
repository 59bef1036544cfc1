"""The HTTP API as an application: routes, the door before them, the worker behind them.

Wires what the other modules of this room make; every refusal is one line of JSON.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from medgen.access import Access
from medgen.data.images import SYNTHETIC_NOTICE
from medgen.errors import BadInput, MedgenError
from medgen.graphs.agent import Agent
from medgen.serve import rating_routes, run_routes
from medgen.serve.door import Doorway, not_too_often, shows_the_token
from medgen.serve.jobs import Jobs
from medgen.serve.limits import BODY_BYTES, Limits, Rate
from medgen.serve.metrics import Metrics
from medgen.serve.schemas import REFUSALS, Health, in_json
from medgen.serve.views import NotThere
from medgen.settings import settings

DESCRIPTION = f"""
Runs of medgen over HTTP: reasoned about, drawn, checked by measurement, explained; the same agent
as on the command line. One run is drawn at a time, the others wait in order.

{SYNTHETIC_NOTICE}
"""
DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
)
open_routes = APIRouter()


def application(
    access: Access,
    limits: Limits | None = None,
    *,
    agent: Agent | None = None,
    origins: list[str] | None = None,
) -> FastAPI:
    """Everything that answers requests; the worker starts and stops with it.

    Args:
        access: Where the server listens, and its token.
        limits: What clients may ask; the usual when None.
        agent: What draws; one with this process's own models when None.
        origins: Web origins whose pages may call the API; none when None.

    Raises:
        BadInput: The folder of runs cannot be written, or is another server's.
    """
    limits = limits or Limits()
    metrics = Metrics()
    jobs = Jobs(agent or Agent(), settings().runs, limits.queue, metrics.run_ended)
    jobs.claim()
    metrics.watch_queue(lambda: jobs.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        jobs.start()
        yield
        jobs.stop()

    app = FastAPI(
        title="medgen",
        version=version("medgen"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=REFUSALS,
    )
    app.state.access, app.state.limits = access, limits
    app.state.jobs, app.state.metrics = jobs, metrics
    app.state.rate, app.state.open_streams = Rate(limits.rate), 0
    metrics.streams.set_function(lambda: app.state.open_streams)
    _add_routes(app)
    _add_middleware(app, access, metrics, origins or [])
    for error, answer in ((BadInput, _bad_input), (MedgenError, _failed)):
        app.add_exception_handler(error, answer)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


def _add_routes(app: FastAPI) -> None:
    from swagger_ui_bundle import swagger_ui_path

    app.include_router(open_routes, dependencies=[Depends(not_too_often)])
    closed = [Depends(not_too_often), Depends(shows_the_token)]
    for router in (run_routes.router, rating_routes.router, figures):
        app.include_router(router, dependencies=closed)
    app.mount("/docs-files", StaticFiles(directory=swagger_ui_path))


def _add_middleware(app: FastAPI, access: Access, metrics: Metrics, origins: list[str]) -> None:
    if access.local:  # so that no web page reaches it under a name of its own (DNS rebinding)
        hosts = ["localhost", "127.0.0.1", "[::1]", access.host]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Last-Event-ID"],
        )
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=BODY_BYTES)
    app.add_middleware(Doorway, metrics=metrics)


@open_routes.get("/health", tags=["server"])
def health(request: Request) -> Health:
    """Whether the server is up, and done with loading; needs no token."""
    jobs = request.app.state.jobs
    return Health(status="ok" if jobs.ready else "loading", waiting=jobs.waiting)


@open_routes.get("/docs", include_in_schema=False)
def docs() -> HTMLResponse:
    """This API's documentation, to read and to try; loads nothing from elsewhere."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="medgen API",
        swagger_js_url="/docs-files/swagger-ui-bundle.js",
        swagger_css_url="/docs-files/swagger-ui.css",
        swagger_favicon_url="/docs-files/favicon-32x32.png",
    )
    page.headers["Content-Security-Policy"] = DOCS_POLICY
    return page


figures = APIRouter(tags=["server"])


@figures.get("/metrics", response_class=PlainTextResponse, responses=in_json(REFUSALS))
def metrics(request: Request) -> PlainTextResponse:
    """Requests, runs, the queue and memory, in Prometheus' text format."""
    return PlainTextResponse(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _bad_input(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 404 if isinstance(error, NotThere) else 422)


def _failed(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 503)


def _invalid(_: Request, error: Exception) -> JSONResponse:
    """The first fault in one line; what was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    if fault["type"] == "json_invalid":
        return JSONResponse(
            {"detail": f"the body is no JSON, at character {fault['loc'][-1]}"}, 400
        )
    where = ".".join(str(part) for part in fault["loc"][1:])
    if fault["loc"] == ("body",) and fault["type"] != "value_error":
        line = "the body is no JSON object: send one, with Content-Type: application/json"
    else:
        line = f"{where or 'body'}: {fault['msg']}".encode(errors="replace").decode()
    return JSONResponse({"detail": line}, 422)
