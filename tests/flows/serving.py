"""A service on loopback in a thread of the test, as clients see it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

TOKEN = "a token"
SIGNED = {"Authorization": f"Bearer {TOKEN}"}


@contextmanager
def served(app: FastAPI) -> Iterator[httpx.Client]:
    """A client of the application, which ends on exit."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        try:
            url = f"http://127.0.0.1:{door.getsockname()[1]}"
            with httpx.Client(
                base_url=url, headers=SIGNED, timeout=60, transport=httpx.HTTPTransport(retries=5)
            ) as one:
                one.get("/health").raise_for_status()
                yield one
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()


def question(image: bytes, text: str = "Is there a mass?", **more: str) -> dict[str, Any]:
    """The arguments of a client's `post` to `/v1/ask`."""
    return {"files": {"image": ("image.png", image)}, "data": {"question": text, **more}}
