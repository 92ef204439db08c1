"""The service's routes: questions, explanations, health, measures, and a page to try it."""

from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, File, Form, Header, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.security import HTTPBearer

from flows.serve.chat import add_chat
from flows.serve.errors import add_errors, told_in_stream
from flows.serve.front import Front, Limits, Sent, Waiting
from flows.serve.gate import Gate
from flows.serve.metrics import Metrics
from flows.serve.rate import RateLimit
from flows.serve.schemas import AskReply, ErrorReply, event, problem, reply_of
from flows.serve.service import Service
from flows.serve.tokens import Tokens

PAGE = Path(__file__).with_name("page.html")
PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src blob: data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ERRORS: dict[int | str, dict[str, Any]] = {code: {"model": ErrorReply} for code in (400, 401, 409, 410, 413, 429, 503)}


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
    add_errors(app)
    _add_state(app, service, metrics)
    _add_questions(app, front)
    add_chat(app, front)
    return app


def _add_questions(app: FastAPI, front: Front) -> None:
    signed = [Depends(HTTPBearer(auto_error=False))]  # for the description alone: the gate checks

    @app.post(
        "/v1/ask",
        dependencies=signed,
        responses={**ERRORS, 200: {"model": AskReply, "content": {"text/event-stream": {}}}},
        response_model=None,
    )
    async def ask(
        request: Request,
        image: Annotated[UploadFile, File(description="Image file, also DICOM or DICOM JSON.")],
        question: Annotated[str, Form(max_length=2000, examples=["Is there a mass?"])],
        images: Annotated[bool, Form(description="Whether to send the retrieved images too.")] = False,
        stream: Annotated[bool, Form(description="Whether to send the words as they are generated.")] = False,
        idempotency_key: Annotated[str | None, Header(description="Asked again, gets the same answer.")] = None,
    ) -> AskReply | StreamingResponse:
        """Answer a question about an image.

        With `stream`, server-sent events: `token` for each piece of the answer, then `answer` with the whole reply, or
        `error`.
        """
        sent = Sent(await image.read(), question, images, idempotency_key)
        if stream:
            return StreamingResponse(_events(await front.stream(request, sent)), media_type="text/event-stream")
        return await run_in_threadpool(reply_of, await front.ask(request, sent))

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


async def _events(waiting: Waiting) -> AsyncIterator[str]:
    try:
        async for piece in waiting.pieces():
            if isinstance(piece, str):
                yield event({"text": piece}, "token")
            else:
                yield event((await run_in_threadpool(reply_of, piece)).model_dump(), "answer")
    except Exception as error:  # the status is sent already
        yield event(problem(*told_in_stream(error)), "error")


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
