"""Flower's apps: for a site that runs Flower already, and starts a study with `flwr run`."""

from collections.abc import Callable

from flwr.app import Message

from flows.runtimes.flower.wire import packed, unpacked
from tasks.errors import StudyError
from tasks.federate.remote.parcel import Parcel


def reply_to(message: Message, answer: Callable[[Parcel], Parcel]) -> Message:
    """The answer to a message; a message that is none of ours is refused with a sentence."""
    try:
        request = unpacked(message.content)
    except StudyError as error:
        return Message(packed(Parcel("refused", {"reason": str(error)})), reply_to=message)
    return Message(packed(answer(request)), reply_to=message)
