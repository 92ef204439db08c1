"""The coordinator's side of a comparison of hospitals' images: it passes on keys and digests, and is told counts."""

import secrets
from collections.abc import Sequence
from typing import Any

from tasks.errors import StudyError
from tasks.federate.remote.parcel import Parcel, ask_each


def compare_images(hospitals: Sequence[str]) -> dict[str, int | None]:
    """How many test images of each hospital others train on, by the link of this context; None where it is withheld.

    A hospital withholds it where these images, or its other test images, are few.

    Raises StudyError if a hospital refuses, or answers with something else.
    """
    session = {"session": secrets.token_hex(16)}
    introduced = ask_each({name: Parcel("images", {"step": "introduce"} | session) for name in hospitals})
    keys = {name: dict(answer.about) for name, answer in introduced.items()}
    marked = ask_each({name: Parcel("images", {"step": "mark", "keys": keys} | session) for name in hospitals})
    for name, answer in marked.items():
        if answer.files.keys() != set(hospitals) - {name}:
            raise StudyError(f"Expected digests of {name} for each other hospital, found others: it is at fault.")
    comparing = {
        name: Parcel("images", {"step": "compare"} | session, {each: marked[each].files[name] for each in others})
        for name in hospitals
        for others in [[each for each in hospitals if each != name]]
    }
    return {name: _count(name, answer.about.get("images")) for name, answer in ask_each(comparing).items()}


def _count(name: str, told: Any) -> int | None:
    if told is not None and (type(told) is not int or told < 0):
        raise StudyError(f"Expected a number of images from {name}, found something else: it is at fault.")
    return told
