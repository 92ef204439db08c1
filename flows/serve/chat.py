"""The route that clients of OpenAI's chat completions can talk to: one question about one image."""

import base64
import binascii
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer

from flows.serve.asked import Given
from flows.serve.errors import told_in_stream
from flows.serve.front import Front, Sent, Waiting
from flows.serve.schemas import WITHHELD, ChatRequest, ErrorReply, event, problem


def add_chat(app: FastAPI, front: Front) -> None:
    """Add the route to an application."""

    @app.post(
        "/v1/chat/completions",
        dependencies=[Depends(HTTPBearer(auto_error=False))],
        responses={code: {"model": ErrorReply} for code in (400, 401, 409, 410, 413, 429, 503)},
        response_model=None,
    )
    async def complete(
        request: Request, chat: ChatRequest, idempotency_key: Annotated[str | None, Header()] = None
    ) -> Response | dict[str, Any]:
        """Answer the last message of a chat, which holds one image as a data URL and a question.

        Earlier messages are not read. With `stream`, the words are sent as server-sent events while they are generated.
        """
        image, question = question_of(chat)
        sent = Sent(image, question, key=idempotency_key)
        if chat.stream:
            waiting = await front.stream(request, sent)
            name = front.service.model().run
            return StreamingResponse(_events(waiting, name), media_type="text/event-stream")
        given = await front.ask(request, sent)
        choice = {"index": 0, "message": {"role": "assistant", "content": _text(given)}, "finish_reason": "stop"}
        return {**_head(given.id, given.model.run), "object": "chat.completion", "choices": [choice]}


def question_of(chat: ChatRequest) -> tuple[bytes, str]:
    """The image and the question of a chat's last message. Raises HTTPException 400 if it has not one image."""
    content = chat.messages[-1].content
    parts = [] if isinstance(content, str) else content
    urls = [part.image_url.url for part in parts if part.image_url]
    if len(urls) != 1:
        raise HTTPException(
            400,
            f"Expected one part image_url in the last message, found {len(urls)}: send the image with the question.",
        )
    head, comma, data = urls[0].partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        raise HTTPException(400, "Expected an image as a base64 data URL, found another: nothing is fetched.")
    try:
        image = base64.b64decode(data, validate=True)
    except binascii.Error:
        raise HTTPException(400, "Expected base64 in the image's data URL, found something else.") from None
    return image, "\n".join(part.text for part in parts if part.text)


def _head(name: str, run: str) -> dict[str, Any]:
    return {"id": name, "created": int(time.time()), "model": run}


def _text(given: Given) -> str:
    return WITHHELD if given.abstained else given.reply.text


async def _events(waiting: Waiting, run: str) -> AsyncIterator[str]:
    head = _head(waiting.asked.picture.id, run)

    def chunk(delta: dict[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return event({**head, "object": "chat.completion.chunk", "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    try:
        async for piece in waiting.pieces():
            if isinstance(piece, str):
                yield chunk({"content": piece})
            elif piece.abstained:
                yield chunk({"content": WITHHELD})
    except Exception as error:  # the status is sent already
        yield event(problem(*told_in_stream(error)))
        return
    yield chunk({}, "stop")
    yield "data: [DONE]\n\n"
