"""What clients are told of each error: a status, one sentence, and when to ask again."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from flows.serve.asked import BrokenOffError, ChangedError, ErasedError, KeyTakenError
from flows.serve.batcher import FullError
from flows.serve.schemas import problem
from tasks.errors import StudyError

logger = logging.getLogger("fed_rag")

QUEUE = 256
"""Most questions that wait; more are refused."""
TOLD: dict[type[Exception], tuple[int, str]] = {
    ChangedError: (404, "Expected the id of a recent answer of the model that is served now, found none: ask again."),
    FullError: (503, f"Expected at most {QUEUE} waiting questions, found as many: ask again later."),
    BrokenOffError: (503, "Expected the hospital's library to rest, found it changed: ask again."),
    KeyTakenError: (409, "Expected a new Idempotency-Key for another question, found one in use: choose another."),
    ErasedError: (
        410,
        "Expected an answer that can be shown again, found one whose cases are gone: ask with a new Idempotency-Key.",
    ),
}
AGAIN_S = {FullError: 1, StudyError: 10, BrokenOffError: 1}
"""Seconds after which to ask again."""


def told(error: Exception) -> tuple[int, str]:
    """The status and the sentence of an error."""
    if isinstance(error, StudyError):
        return 503, str(error)
    if isinstance(error, HTTPException):
        return error.status_code, error.detail
    return TOLD.get(type(error), (500, "Expected an answer, found an error of the service: its log has more."))


def told_in_stream(error: Exception) -> tuple[int, str]:
    """As `told`. An unexpected error is logged here, since after the first word of a reply no handler sees it."""
    code, message = told(error)
    if code == 500:
        logger.error("failed in a stream", exc_info=error)
    return code, message


def add_errors(app: FastAPI) -> None:
    """Every error is one sentence in JSON."""

    async def answered(_: Request, error: Exception) -> JSONResponse:
        code, message = told(error)
        wait = next((str(seconds) for kind, seconds in AGAIN_S.items() if isinstance(error, kind)), None)
        return JSONResponse(problem(code, message), code, {"Retry-After": wait} if wait else None)

    for kind in (*TOLD, StudyError, Exception):
        app.add_exception_handler(kind, answered)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        message = "Expected a path of /openapi.json, found another." if error.detail == "Not Found" else error.detail
        return JSONResponse(problem(error.status_code, message), error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        return JSONResponse(problem(400, f"Expected {where} as in /openapi.json, found: {first['msg']}."), 400)
