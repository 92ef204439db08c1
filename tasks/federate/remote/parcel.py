"""What coordinator and hospitals send each other, and the link that carries it, whichever network that is."""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tasks.errors import StudyError

PROTOCOL = 3
"""The version of all that travels; another one is refused by name."""
MOST_BYTES = 2**30
"""The largest files of one parcel, together."""
MESSAGE = "message"
"""The file of a message of a secure sum."""
Kind = Literal["meet", "images", "train", "offer", "sum", "validate", "evaluate", "privacy", "done", "refused"]
"""A coordinator's requests, and a hospital's answers: what it was asked for is `done`, or `refused`.

`images` is a step of a comparison of hospitals' images. `offer` begins a hospital's part in a secure sum of what it
trained, and `sum` is a later step."""


@dataclass(frozen=True)
class Parcel:
    """One message: its kind, what it says as JSON, and files."""

    kind: Kind
    about: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = sum(len(data) for data in self.files.values())
        if size > MOST_BYTES:
            raise StudyError(
                f"Expected at most {MOST_BYTES:,} bytes of files in a message, found {size:,}: lower lora.r, or train "
                "fewer layers."
            )


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """The sha256 of each file, in hexadecimal."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


class Link(Protocol):
    """The coordinator's way to its hospitals."""

    def ask(self, hospital: str, request: Parcel) -> Parcel:
        """Send a request to a hospital, and wait for its answer, however long that takes.

        Raises StudyError if the hospital is not known, or the link is closed meanwhile.
        """

    def close(self) -> None:
        """End all waiting, in whichever thread."""


_link: ContextVar[Link] = ContextVar("link")


@contextmanager
def linked(link: Link) -> Iterator[None]:
    """In this context, and the tasks of a flow that begins in it, hospitals are asked by this link."""
    token = _link.set(link)
    try:
        yield
    finally:
        _link.reset(token)


@contextmanager
def closing_if_told_to_end() -> Iterator[None]:
    """In this context other threads wait for hospitals: a signal that ends the process ends their waiting first.

    Prefect waits for all tasks of a flow that it ends, and these may wait for a hospital for days.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException:
        _link.get().close()
        raise


def ask_each(requests: Mapping[str, Parcel]) -> dict[str, Parcel]:
    """Ask several hospitals at once, each something else; returns their answers by hospital. Raises as `ask`."""
    with ThreadPoolExecutor(max_workers=len(requests)) as pool, closing_if_told_to_end():
        asking = {name: pool.submit(copy_context().run, ask, name, request) for name, request in requests.items()}
        return {name: asked.result() for name, asked in asking.items()}


def ask(hospital: str, request: Parcel) -> Parcel:
    """Ask a hospital by the link of this context.

    Raises StudyError as `Link.ask` does, if there is no link, or if the hospital refuses, with its sentence.
    """
    try:
        link = _link.get()
    except LookupError:
        raise StudyError(
            f"Expected a link to {hospital}, found none: start the study with `fed-rag coordinator start`."
        ) from None
    answer = link.ask(hospital, request)
    if answer.kind == "refused":
        raise StudyError(f"{hospital} refused: {answer.about['reason']}")
    return answer
