"""A question to the service, what comes back, and how both stand in the hospital's log."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime

from flows.serve.answerer import Reply
from flows.serve.asked_log import Entry
from flows.serve.desk import Desk
from flows.serve.stream import Stream
from tasks.records import Image


@dataclass(frozen=True)
class Asked:
    """A question about an image. The image's id is the answer's id."""

    who: str
    """Name of the token."""
    picture: Image
    question: str
    pictures: bool = False
    """Whether the images of the retrieved cases are wanted too."""
    key: str | None = None
    """As `Entry.key`: a question with the key of an earlier one gets the earlier answer."""
    content: str | None = None
    """As `Entry.content`."""
    stream: Stream | None = None
    """Where the words of the answer go as they are generated."""
    given_up: threading.Event | None = None
    """Set when nobody waits for the answer any more."""

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.given_up is not None and self.given_up.is_set()


@dataclass(frozen=True)
class Model:
    """What answered."""

    run: str
    adapter: str
    """Digest of the adapter's folder."""


@dataclass(frozen=True)
class Given:
    """The reply to a question."""

    reply: Reply
    model: Model
    pictures: dict[str, Image]
    """Images of the retrieved cases by id; empty if they were not wanted."""
    id: str
    """Id of the answer: of the earlier one, if it was given before."""

    @property
    def abstained(self) -> bool:
        """Whether the answer is withheld, since the model is not sure enough."""
        return self.reply.confidence < self.reply.threshold


class ChangedError(Exception):
    """An answer that cannot be explained: unknown, too old, or of a model or library that is no longer there."""


class BrokenOffError(Exception):
    """A streamed answer whose library changed after its first words were sent."""


class KeyTakenError(Exception):
    """A key that was given to another question before."""


class ErasedError(Exception):
    """An earlier answer that cannot be shown again, since a case behind it is gone."""


def repeated(desk: Desk, asked: Asked, entry: Entry) -> Given | Exception:
    """An earlier answer to a question with the same key."""
    if entry.content != asked.content:
        return KeyTakenError()
    if entry.erased or not all(name in desk.cases for name in entry.shown):
        return ErasedError()
    shown = tuple(zip(entry.similarities, (desk.cases[name] for name in entry.shown), strict=True))
    reply = Reply(entry.answer or "", entry.confidence, entry.threshold, shown)
    pictures = pictures_of(desk, reply) if asked.pictures else {}
    return Given(reply, Model(entry.run, entry.adapter), pictures, entry.id)


def entry_of(asked: Asked, given: Given) -> Entry:
    """The line that the log gets."""
    return Entry(
        datetime.now(UTC).isoformat(timespec="milliseconds"),
        asked.who,
        asked.picture.id,
        asked.question,
        None if given.abstained else given.reply.text,
        tuple(case.id for _, case in given.reply.retrieved),
        given.model.run,
        given.model.adapter,
        tuple(near for near, _ in given.reply.retrieved),
        given.reply.confidence,
        given.reply.threshold,
        key=asked.key,
        content=asked.content,
    )


def pictures_of(desk: Desk, reply: Reply) -> dict[str, Image]:
    """The images of the retrieved cases by id."""
    return desk.pictures({case.image_id for _, case in reply.retrieved})
