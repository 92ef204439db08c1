"""The route that clients of OpenAI's chat completions can talk to: one question about one image."""

import base64
import binascii
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer

from flows.serve.schemas import WITHHELD, ChatRequest, ErrorReply
from flows.serve.service import Given

Ask = Callable[[str, bytes, str], Awaitable[tuple[str, Given]]]
"""From the asker's name, an image and a question, the id of the answer and the answer."""


def add_chat(app: FastAPI, ask: Ask) -> None:
    """Add the route to an application."""

    @app.post(
        "/v1/chat/completions",
        dependencies=[Depends(HTTPBearer(auto_error=False))],
        responses={code: {"model": ErrorReply} for code in (400, 401, 413, 429, 503)},
        response_model=None,
    )
    async def complete(request: Request, chat: ChatRequest) -> Response | dict[str, Any]:
        """Answer the last message of a chat, which holds one image as a data URL and a question.

        Earlier messages are not read. With `stream`, the finished answer is sent word by word as server-sent events.
        """
        image, question = question_of(chat)
        name, given = await ask(request.state.who, image, question)
        text = WITHHELD if given.abstained else given.reply.text
        head = {"id": name, "created": int(time.time()), "model": given.model.run}
        if chat.stream:
            return StreamingResponse(_events(head, text), media_type="text/event-stream")
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return {**head, "object": "chat.completion", "choices": [choice]}


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


def _events(head: dict[str, Any], text: str) -> Iterator[str]:
    words = text.split(" ")
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word if place == 0 else f" {word}"} for place, word in enumerate(words)]
    for delta in (*deltas, {}):
        choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
        chunk = {**head, "object": "chat.completion.chunk", "choices": [choice]}
        yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"
