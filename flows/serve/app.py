"""The service's routes: questions, explanations, health, measures, and a page to try it."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException as AnyHTTPException

from flows.serve.batcher import Batcher, FullError
from flows.serve.chat import add_chat
from flows.serve.gate import Gate
from flows.serve.metrics import Metrics
from flows.serve.rate import RateLimit
from flows.serve.schemas import AskReply, ErrorReply, problem, reply_of
from flows.serve.service import Asked, ChangedError, Given, Service
from flows.serve.tokens import Tokens
from flows.serve.user_question import read_sent, refuse_empty
from tasks.errors import StudyError

PAGE = Path(__file__).with_name("page.html")
PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src blob: data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
QUEUE = 256
"""Most questions that wait; more are refused."""
ERRORS: dict[int | str, dict[str, Any]] = {code: {"model": ErrorReply} for code in (400, 401, 413, 429, 503)}


@dataclass(frozen=True)
class Limits:
    """What a service bears."""

    batch: int = 32
    """Most questions answered together."""
    wait_ms: float = 20
    """How long the first question of a batch waits for others."""
    per_minute: int = 120
    """Requests of one token."""
    most_bytes: int = 32_000_000
    """Of one request."""


class Front:
    """What the routes share: the service behind its queue."""

    def __init__(self, service: Service, limits: Limits, metrics: Metrics) -> None:
        self.service, self._metrics = service, metrics
        self._batcher: Batcher[Asked, Given] = Batcher(self._answer, limits.batch, limits.wait_ms / 1000, QUEUE)
        metrics.watch_queue(self._batcher.waiting)

    async def ask(self, who: str, image: bytes, question: str, pictures: bool = False) -> tuple[str, Given]:
        """The id of an answer, and the answer. Raises HTTPException 400 if image or question is unusable."""
        name = secrets.token_hex(8)
        try:
            refuse_empty(question)
            picture = await run_in_threadpool(read_sent, image, name)
        except StudyError as error:
            raise HTTPException(400, str(error)) from None
        given = await asyncio.wrap_future(self._batcher.submit(Asked(who, picture, question, pictures)))
        self._metrics.abstentions.inc(given.abstained)
        return name, given

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """At the end, answer what waits."""
        yield
        await run_in_threadpool(self._batcher.close)

    def _answer(self, asked: Sequence[Asked]) -> list[Given]:
        self._metrics.batch.observe(len(asked))
        return self.service.answer(asked)


def make_app(service: Service, tokens: Tokens, limits: Limits, metrics: Metrics) -> FastAPI:
    """The application. Other pages cannot call it from a browser, since it sends no CORS headers."""
    front = Front(service, limits, metrics)
    app = FastAPI(
        title="fed-rag",
        version=version("fed-rag"),
        description="Answers questions about images with a hospital's own similar cases. For research only; not a "
        "medical device.",
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        lifespan=front.lifespan,
    )
    app.add_middleware(
        Gate, tokens=tokens, rate=RateLimit(limits.per_minute), most_bytes=limits.most_bytes, metrics=metrics
    )
    _add_errors(app)
    _add_state(app, service, metrics)
    _add_questions(app, front)
    add_chat(app, front.ask)
    return app


def _add_questions(app: FastAPI, front: Front) -> None:
    signed = [Depends(HTTPBearer(auto_error=False))]  # for the description alone: the gate checks

    @app.post("/v1/ask", dependencies=signed, responses=ERRORS)
    async def ask(
        request: Request,
        image: Annotated[UploadFile, File(description="Image file, also DICOM.")],
        question: Annotated[str, Form(max_length=2000, examples=["Is there a mass?"])],
        images: Annotated[bool, Form(description="Whether to send the retrieved images too.")] = False,
    ) -> AskReply:
        """Answer a question about an image."""
        name, given = await front.ask(request.state.who, await image.read(), question, images)
        return await run_in_threadpool(reply_of, name, given)

    @app.get(
        "/v1/explain/{answer}",
        dependencies=signed,
        response_class=Response,
        responses={**ERRORS, 200: {"content": {"image/png": {}}}, 404: {"model": ErrorReply}},
    )
    def explain(
        request: Request, answer: str, method: Literal["attention", "rollout", "relevance", "occlusion"] = "relevance"
    ) -> Response:
        """Draw where a recent answer comes from, as a PNG."""
        return Response(front.service.explain(request.state.who, answer, method), media_type="image/png")


def _add_state(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": PAGE_POLICY})

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "ok"}

    @app.get("/ready", responses={503: {"model": ErrorReply}})
    def ready() -> dict[str, str]:
        """Whether questions can be answered, and by which run and adapter."""
        model = service.model()
        return {"status": "ready", "run": model.run, "adapter": model.adapter}

    @app.get("/metrics", response_class=Response, dependencies=[Depends(HTTPBearer(auto_error=False))])
    def measures() -> Response:
        """Measures for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_errors(app: FastAPI) -> None:
    """Every error is one sentence in JSON."""

    @app.exception_handler(AnyHTTPException)
    async def refused(_: Request, error: AnyHTTPException) -> JSONResponse:
        message = "Expected a path of /openapi.json, found another." if error.detail == "Not Found" else error.detail
        return JSONResponse(problem(error.status_code, message), error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        return JSONResponse(problem(400, f"Expected {where} as in /openapi.json, found: {first['msg']}."), 400)

    @app.exception_handler(ChangedError)
    async def changed(_: Request, __: ChangedError) -> JSONResponse:
        message = "Expected the id of a recent answer of the model that is served now, found none: ask again."
        return JSONResponse(problem(404, message), 404)

    @app.exception_handler(FullError)
    async def full(_: Request, __: FullError) -> JSONResponse:
        message = f"Expected at most {QUEUE} waiting questions, found as many: ask again later."
        return JSONResponse(problem(503, message), 503, {"Retry-After": "1"})

    @app.exception_handler(StudyError)
    async def not_served(_: Request, error: StudyError) -> JSONResponse:
        return JSONResponse(problem(503, str(error)), 503, {"Retry-After": "10"})

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> JSONResponse:
        message = "Expected an answer, found an error of the service: its log has more."
        return JSONResponse(problem(500, message), 500)
