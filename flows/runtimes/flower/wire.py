"""Parcels as Flower's messages: one record that tells what it is, and one with the bytes of its files."""

import json
from collections.abc import Callable
from typing import get_args

from flwr.app import ConfigRecord, Message, RecordDict

from tasks.errors import StudyError
from tasks.federate.remote.parcel import PROTOCOL, Kind, Parcel, digests

TYPES = {
    "meet": "query.meet",
    "images": "query.images",
    "train": "train",
    "offer": "query.offer",
    "sum": "query.sum",
    "validate": "evaluate.validate",
    "evaluate": "evaluate",
    "privacy": "query.privacy",
}
"""Flower's type of message for each request."""
TTL_S = 30 * 24 * 3600.0
"""How long a request waits to be answered. Flower drops it after that."""


def request(node: int, parcel: Parcel) -> Message:
    """A parcel as a message to a node."""
    return Message(packed(parcel), node, TYPES[parcel.kind], ttl=TTL_S)


def packed(parcel: Parcel) -> RecordDict:
    """A parcel as records."""
    about = json.dumps(parcel.about, allow_nan=False)
    told = ConfigRecord({"protocol": PROTOCOL, "kind": parcel.kind, "about": about})
    sums, files = ConfigRecord(dict(digests(parcel.files))), ConfigRecord(dict(parcel.files))
    return RecordDict({"told": told, "digests": sums, "files": files})


def unpacked(records: RecordDict) -> Parcel:
    """The parcel in a message's records.

    Raises StudyError if it has another protocol version, its files are not those of their digests, or it is none.
    """
    try:
        told = records.config_records["told"]
        if told["protocol"] != PROTOCOL:
            raise StudyError(
                f"Expected protocol version {PROTOCOL}, found {told['protocol']!r}: install the same version of "
                "fed-rag at the coordinator and at every hospital."
            )
        kind, about = told["kind"], json.loads(str(told["about"]))
        sums, found = dict(records.config_records["digests"]), dict(records.config_records["files"])
        files = {name: data for name, data in found.items() if isinstance(data, bytes)}
        foreign = kind not in get_args(Kind) or not isinstance(about, dict) or files.keys() != found.keys()
    except (KeyError, ValueError):
        foreign = True
    if foreign:
        raise StudyError("Expected a message of fed-rag, found another: both sides must run fed-rag.")
    if digests(files) != sums:
        raise StudyError("Expected files as their digests say, found others: they were damaged on their way.")
    return Parcel(kind, about, files)  # type: ignore[arg-type]


def reply_to(message: Message, answer: Callable[[Parcel], Parcel]) -> Message:
    """The answer to a message; a message that is none of ours is refused with a sentence."""
    try:
        request = unpacked(message.content)
    except StudyError as error:
        return Message(packed(Parcel("refused", {"reason": str(error)})), reply_to=message)
    return Message(packed(answer(request)), reply_to=message)
