"""The coordinator's side of a secure sum over a network: it passes on what hospitals say, and learns the sum alone."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextvars import copy_context
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.errors import StudyError
from tasks.federate.privacy.secure_aggregation.coordinator import Coordinator
from tasks.federate.privacy.secure_aggregation.keys import signed_by
from tasks.federate.privacy.secure_aggregation.messages import (
    Agreement,
    MaskedUpdate,
    Message,
    PublicKeys,
    Revealed,
    SealedShares,
    Session,
    majority,
    pack,
    unpack,
)
from tasks.federate.remote.parcel import MESSAGE, Parcel, ask, closing_if_told_to_end
from tasks.federate.remote.summing import session_name

logger = logging.getLogger("fed_rag")
T = TypeVar("T")
Said = TypeVar("Said", PublicKeys, SealedShares, MaskedUpdate, Agreement, Revealed)


def sum_by_link(
    number: int, hospitals: Mapping[str, bytes], length: int, offers: Mapping[str, Parcel]
) -> NDArray[np.float64]:
    """The sum of what hospitals offer, `(length,)`, by the link of this context.

    A hospital that does not answer in a step, or answers wrongly, has dropped out; the log names it.

    Args:
        number: of the round.
        hospitals: public keys of all that have something to offer.
        length: numbers that each masks.
        offers: the request that a hospital's part begins with.

    Raises StudyError if fewer than a majority are left, or the shares of one are wrong.
    """
    nonces = _ask_each(offers, lambda _, answer: str(answer.about.get("nonce")))
    session = Session(
        name=session_name(number, nonces),
        hospitals=dict(hospitals),
        threshold=majority(len(hospitals)),
        length=length,
    )
    coordinator = Coordinator(session)
    entering = dict.fromkeys(nonces, Parcel("sum", {"nonces": nonces}, {MESSAGE: pack(session)}))
    keys = _ask_each(entering, lambda name, answer: _signed(session, _said(PublicKeys, name, answer)))
    listed = coordinator.list_keys(list(keys.values()))
    shared = _ask_each(_all(keys, listed), lambda name, answer: _for_all(keys, _said(SealedShares, name, answer)))
    delivered = coordinator.deliver(list(shared.values()))
    masking = {name: _step(each) for name, each in delivered.items()}
    masked = _ask_each(masking, lambda name, answer: coordinator.add(_said(MaskedUpdate, name, answer)))
    survivors = coordinator.survivors()
    content = survivors.signed(session)

    def agreed(name: str, answer: Parcel) -> Agreement:
        found = _said(Agreement, name, answer)
        if not signed_by(session.hospitals[name], found.signature, content):
            raise StudyError(f"Expected {name} to sign the survivors, found another signature: it is at fault.")
        return found

    agreeing = _ask_each(_all(masked, survivors), agreed)
    agreements = coordinator.agreements(list(agreeing.values()))
    revealed = _ask_each(_all(agreeing, agreements), lambda name, answer: _said(Revealed, name, answer))
    return coordinator.unmask(list(revealed.values()))


def _step(message: Message) -> Parcel:
    return Parcel("sum", {}, {MESSAGE: pack(message)})


def _all(names: Mapping[str, object], message: Message) -> dict[str, Parcel]:
    return dict.fromkeys(names, _step(message))


def _ask_each(requests: Mapping[str, Parcel], take: Callable[[str, Parcel], T]) -> dict[str, T]:
    """Ask hospitals at once, and take each answer as it comes; returns by hospital what was taken, without drop-outs.

    An answer is forgotten once it is taken, so that one masked update is in memory at a time.
    """
    taken: dict[str, T] = {}
    with ThreadPoolExecutor(max_workers=max(len(requests), 1)) as pool, closing_if_told_to_end():
        asking: dict[Future[Parcel], str] = {
            pool.submit(copy_context().run, ask, name, request): name for name, request in requests.items()
        }
        for done in as_completed(list(asking)):
            name = asking.pop(done)
            try:
                taken[name] = take(name, done.result())
            except StudyError as error:
                logger.warning("%s drops out of the secure sum: %s", name, error)
    return dict(sorted(taken.items()))


def _said(kind: type[Said], name: str, answer: Parcel) -> Said:
    """A hospital's message. Raises StudyError if it is none of this kind, or of another hospital."""
    message = unpack(answer.files.get(MESSAGE, b""))
    if not isinstance(message, kind) or message.hospital != name:
        raise StudyError(f"Expected {kind.__name__} of {name}, found another message: it is at fault.")
    return message


def _signed(session: Session, keys: PublicKeys) -> PublicKeys:
    if not signed_by(session.hospitals[keys.hospital], keys.signature, keys.signed(session)):
        raise StudyError(f"Expected keys that {keys.hospital} signed, found others: it is at fault.")
    return keys


def _for_all(names: Mapping[str, object], shares: SealedShares) -> SealedShares:
    if shares.sealed.keys() != names.keys() - {shares.hospital}:
        raise StudyError(f"Expected shares of {shares.hospital} for each other hospital, found others: it is at fault.")
    return shares
