"""What the service takes and gives, as JSON."""

import base64
import io
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flows.serve.asked import Given
from tasks.records import Image
from tasks.records.pixels import to_rgb

EDGE = 512
"""Longest side of a retrieved image that is sent, in pixels."""
WITHHELD = "(answer withheld: the model is not sure enough)"


class ServedModel(BaseModel):
    """What answered."""

    run: str = Field(description="Name of the run.")
    adapter: str = Field(description="Digest of the adapter.")
    version: str = Field(description="Version of fed-rag.")


class RetrievedCase(BaseModel):
    """One of the hospital's cases that the model was shown."""

    similarity: float
    id: str
    question: str
    answer: str
    image: str | None = Field(description="PNG as a data URL, where images were asked for.")


class AskReply(BaseModel):
    """The reply to a question."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "9f2c41d07a6b3e58",
                    "answer": "yes",
                    "confidence": 0.93,
                    "abstained": False,
                    "retrieved": [
                        {
                            "similarity": 0.97,
                            "id": "phantom:site-1-00012:3",
                            "question": "Is there a mass?",
                            "answer": "yes",
                            "image": None,
                        }
                    ],
                    "model": {
                        "run": "20261130-020000-1a2b3c4d",
                        "adapter": "sha256 in hexadecimal",
                        "version": version("fed-rag"),
                    },
                }
            ]
        }
    )
    id: str = Field(description="For /v1/explain/{id}.")
    answer: str | None = Field(description="Null if it is withheld.")
    confidence: float = Field(description="Mean probability of the answer's tokens, 0 to 1.")
    abstained: bool = Field(description="Whether the answer is withheld: the model is not sure enough.")
    retrieved: list[RetrievedCase] = Field(description="Cases shown to the model, nearest first.")
    model: ServedModel


class Problem(BaseModel):
    """What is wrong."""

    code: int
    message: str = Field(description="One sentence: what was expected, what was found, what to do.")


class ErrorReply(BaseModel):
    """The reply where something is wrong."""

    error: Problem


class ImageUrl(BaseModel):
    """An image in a message."""

    url: str = Field(description="A data URL; nothing is fetched from elsewhere.")


class ContentPart(BaseModel):
    """A part of a message."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None


class Message(BaseModel):
    """A message of a chat."""

    role: str
    content: str | list[ContentPart]


class ChatRequest(BaseModel):
    """A request in the form of OpenAI's chat completions; parameters that are not listed have no effect."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "messages": [
                        {
                            "role": "user",
                            "content": [
                                {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}},
                                {"type": "text", "text": "Is there a mass?"},
                            ],
                        }
                    ]
                }
            ]
        }
    )
    model: str = "fed-rag"
    messages: list[Message] = Field(min_length=1)
    stream: bool = False


def reply_of(given: Given) -> AskReply:
    """The reply to a question as JSON."""
    return AskReply(
        id=given.id,
        answer=None if given.abstained else given.reply.text,
        confidence=given.reply.confidence,
        abstained=given.abstained,
        retrieved=[
            RetrievedCase(
                similarity=similarity,
                id=case.id,
                question=case.question,
                answer=case.answer,
                image=_data_url(given.pictures[case.image_id]) if case.image_id in given.pictures else None,
            )
            for similarity, case in given.reply.retrieved
        ],
        model=ServedModel(run=given.model.run, adapter=given.model.adapter, version=version("fed-rag")),
    )


def event(content: Mapping[str, Any], name: str = "") -> str:
    """A server-sent event with JSON."""
    return f"{f'event: {name}{chr(10)}' if name else ''}data: {json.dumps(content, ensure_ascii=False)}\n\n"


def problem(code: int, message: str) -> dict[str, Any]:
    """An `ErrorReply` as a dictionary."""
    return ErrorReply(error=Problem(code=code, message=message)).model_dump()


def _data_url(image: Image) -> str:
    picture, drawn = to_rgb(image.data), io.BytesIO()
    picture.thumbnail((EDGE, EDGE))
    picture.save(drawn, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(drawn.getvalue()).decode()}"
