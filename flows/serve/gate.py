"""What stands before each request: its token, its rate and its size; and what is measured of it."""

import json
import time
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.serve.metrics import Metrics
from flows.serve.rate import RateLimit
from flows.serve.tokens import Tokens, name_of
from tasks.errors import StudyError

OPEN = ("/", "/health", "/ready", "/openapi.json")
"""Paths that anybody may ask for: they show nothing of the hospital."""


class Refusal(Exception):  # noqa: N818  (no error of the program)
    """A request that is not let in: a status, a sentence, and more headers."""

    def __init__(self, code: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.headers = code, message, headers or {}


class Gate:
    """ASGI middleware that lets in requests with a token, within their rate and size, before their body is read.

    The name of the token becomes `request.state.who`.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens, rate: RateLimit, most_bytes: int, metrics: Metrics) -> None:
        self._app, self._tokens, self._rate, self._most, self._metrics = app, tokens, rate, most_bytes, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it with what is wrong."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._let_in(scope)
            await self._app(scope, self._counting(receive), noting)
        except Refusal as refusal:
            await _refuse(refusal, noting)
        finally:
            path = _route(scope)
            self._metrics.requests.labels(path, status).inc()
            self._metrics.latency.labels(path).observe(time.perf_counter() - started)

    def _let_in(self, scope: Scope) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["path"] not in OPEN:
            who = self._who(headers.get("authorization", ""))
            if wait := self._rate.wait_s(who):
                raise Refusal(
                    429, "Expected fewer requests a minute, found too many: wait.", {"retry-after": f"{int(wait) + 1}"}
                )
            scope.setdefault("state", {})["who"] = who
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._most:
            raise Refusal(413, self._too_large())

    def _who(self, authorization: str) -> str:
        scheme, _, token = authorization.partition(" ")
        try:
            who = name_of(token.strip(), self._tokens.known()) if scheme.lower() == "bearer" else None
        except StudyError as error:
            raise Refusal(503, str(error)) from None
        if who is None:
            raise Refusal(
                401,
                "Expected the header `Authorization: Bearer TOKEN` with a valid token, found none: ask who runs the "
                "service.",
                {"www-authenticate": "Bearer"},
            )
        return who

    def _counting(self, receive: Receive) -> Receive:
        """For bodies that do not state their length."""
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._most:
                raise HTTPException(413, self._too_large())
            return message

        return counted

    def _too_large(self) -> str:
        return f"Expected a request of at most {self._most:,} bytes, found more: send a smaller image."


def _route(scope: Scope) -> str:
    """The path as its route has it, so that what is measured has few names; `other` where there is none."""
    route = scope.get("route")
    return getattr(route, "path", "other")


async def _refuse(refusal: Refusal, send: Send) -> None:
    body = json.dumps({"error": {"code": refusal.code, "message": refusal.message}}).encode()
    given = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
    headers = [(name.encode(), value.encode()) for name, value in given.items()]
    await send({"type": "http.response.start", "status": refusal.code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
