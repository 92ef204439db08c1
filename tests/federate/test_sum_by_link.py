"""Secure sums over a link: exact, with drop-outs in every step, and hospitals that give a lying coordinator nothing."""

import logging
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from tasks.errors import StudyError
from tasks.federate.privacy.secure_aggregation.coordinator import Coordinator
from tasks.federate.privacy.secure_aggregation.messages import (
    Agreement,
    Message,
    PublicKeys,
    Session,
    Survivors,
    majority,
    pack,
    unpack,
)
from tasks.federate.privacy.secure_aggregation.participant import Participant
from tasks.federate.remote.agreement import NotAgreedError
from tasks.federate.remote.parcel import MESSAGE, Parcel, linked
from tasks.federate.remote.sum_by_link import sum_by_link
from tasks.federate.remote.sum_record import SumRecord
from tasks.federate.remote.summing import Summing, session_name

NAMES = ("east", "north", "south", "west", "zenith")
IDENTITIES = {name: Ed25519PrivateKey.generate() for name in NAMES}
KEYS = {name: key.public_key().public_bytes_raw() for name, key in IDENTITIES.items()}
VECTORS = {name: np.random.default_rng(n).normal(0, 1, 5) for n, name in enumerate(NAMES)}
STEPS = ("offer", "Session", "KeyList", "Delivery", "Survivors", "Agreements")
"""What hospitals are sent, in order."""


def hospital(name: str, place: Path, others: Mapping[str, bytes] = KEYS, fewest: int = 2) -> Summing:
    known = {other: key for other, key in others.items() if other != name}
    return Summing(name, IDENTITIES[name], known, fewest, SumRecord(place / f"{name}.json"))


class Post:
    """The hospitals, which a link asks; `leaving` says in which step one stops to answer."""

    def __init__(self, hospitals: Mapping[str, Summing], leaving: Mapping[str, str] = {}) -> None:
        self.hospitals, self.leaving = dict(hospitals), leaving
        self.answers: list[Parcel] = []
        self.change: Callable[[str, Parcel], Parcel] = lambda _, answer: answer

    def ask(self, hospital: str, request: Parcel) -> Parcel:
        step = request.kind if request.kind == "offer" else type(unpack(request.files[MESSAGE])).__name__
        if self.leaving.get(hospital) == step:
            raise StudyError(f"{hospital} left.")
        this = self.hospitals[hospital]
        if step == "offer":
            return Parcel("done", {"nonce": this.begin(1, f"update of {hospital}", lambda: VECTORS[hospital])})
        try:
            answer = this.answer(request)
        except NotAgreedError as error:
            return Parcel("refused", {"reason": str(error)})
        self.answers.append(answer)
        return self.change(step, answer)

    def close(self) -> None:
        """Nobody waits."""


def summed(post: Post, names: tuple[str, ...] = NAMES) -> NDArray[np.float64]:
    keys = {name: KEYS[name] for name in names}
    with linked(post):
        return sum_by_link(1, keys, 5, dict.fromkeys(names, Parcel("offer")))


def exact(names: tuple[str, ...]) -> list[float]:
    """The sum in whole numbers of 2^-32, without any float but the last."""
    units = [[round(Fraction(float(VECTORS[name][at])) * 2**32) for name in names] for at in range(5)]
    return [float(Fraction(sum(each), 2**32)) for each in units]


@pytest.fixture
def five(tmp_path: Path) -> dict[str, Summing]:
    return {name: hospital(name, tmp_path) for name in NAMES}


@pytest.mark.parametrize("step", STEPS)
def test_two_of_five_may_leave_in_any_step(
    step: str, five: dict[str, Summing], caplog: pytest.LogCaptureFixture
) -> None:
    counted = STEPS.index(step) > STEPS.index("Delivery")  # their masked update had come
    with caplog.at_level(logging.WARNING, logger="fed_rag"):
        found = summed(Post(five, {"east": step, "south": step}))
    assert found.tolist() == exact(NAMES if counted else ("north", "west", "zenith"))
    assert {line.split(" drops out")[0] for line in caplog.messages} == {"east", "south"}


@pytest.mark.parametrize("step", STEPS)
def test_three_of_five_may_not(step: str, five: dict[str, Summing]) -> None:
    leaving = dict.fromkeys(("east", "south", "west"), step)
    with pytest.raises(StudyError, match=r"at least 3 hospitals in the secure sum of round 1 .*, found 2"):
        summed(Post(five, leaving))


def test_hospitals_leave_in_different_steps(five: dict[str, Summing]) -> None:
    assert summed(Post(five, {"west": "KeyList", "north": "Agreements"})).tolist() == exact(
        ("east", "north", "south", "zenith")
    )


def test_no_answer_has_an_update_in_it(five: dict[str, Summing]) -> None:
    """Neither the numbers, nor the words that they are masked as."""
    post = Post(five)
    summed(post)
    told = b"".join(data for each in post.answers for data in each.files.values())
    for vector in VECTORS.values():
        for number in vector:
            assert number.tobytes() not in told and np.float32(number).tobytes() not in told
            assert np.int64(np.rint(number * 2**32)).tobytes() not in told


def changed(message: Message, **changes: Any) -> Parcel:
    return Parcel("done", {}, {MESSAGE: pack(message.model_copy(update=changes))})


@pytest.mark.parametrize(("step", "kind"), [("Session", PublicKeys), ("Survivors", Agreement)])
@pytest.mark.parametrize("wrong", [{"signature": bytes(64)}, {"hospital": "zenith"}])
def test_a_hospital_that_answers_wrongly_has_dropped_out(
    step: str, kind: type[Any], wrong: dict[str, Any], five: dict[str, Summing], caplog: pytest.LogCaptureFixture
) -> None:
    post = Post(five)

    def change(now: str, answer: Parcel) -> Parcel:
        message = unpack(answer.files[MESSAGE])
        return changed(message, **wrong) if now == step and message.hospital == "east" else answer  # type: ignore[attr-defined]

    post.change = change
    found = summed(post)
    assert found.tolist() == exact(NAMES[1:] if step == "Session" else NAMES)
    assert [line.split(" drops")[0] for line in caplog.messages] == ["east"]


def test_one_that_diverged_sends_none_and_tells_no_number(
    five: dict[str, Summing], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for bad in (float("nan"), 3.7e12):
        caplog.clear()
        monkeypatch.setitem(VECTORS, "east", np.full(5, bad))
        assert summed(Post(five)).tolist() == exact(NAMES[1:])
        (said,) = caplog.messages
        assert "east refused: Expected an update that can be summed, found one that diverged" in said
        assert "e+" not in said and "nan" not in said


class Liar:
    """A coordinator that follows the steps, up to the one in which a test lets it lie."""

    def __init__(self, five: dict[str, Summing], names: tuple[str, ...] = NAMES, **session: Any) -> None:
        self.hospitals = {name: five[name] for name in names}
        self.nonces = {
            name: each.begin(1, f"update of {name}", lambda: VECTORS["east"]) for name, each in self.hospitals.items()
        }
        given = {"name": session_name(1, self.nonces), "hospitals": {name: KEYS[name] for name in names}}
        self.session = Session(**given | {"threshold": majority(len(names)), "length": 5} | session)
        self.coordinator = Coordinator(self.session)

    def ask(self, name: str, message: Message) -> Any:
        answer = self.hospitals[name].answer(Parcel("sum", {"nonces": self.nonces}, {MESSAGE: pack(message)}))
        return unpack(answer.files[MESSAGE])

    def enter(self) -> list[PublicKeys]:
        return [self.ask(name, self.session) for name in self.hospitals]

    def mask(self) -> None:
        listed = self.coordinator.list_keys(self.enter())
        delivered = self.coordinator.deliver([self.ask(name, listed) for name in self.hospitals])
        for name, each in delivered.items():
            self.coordinator.add(self.ask(name, each))


def test_whom_a_hospital_does_not_know_it_does_not_sum_with(tmp_path: Path, five: dict[str, Summing]) -> None:
    """Neither a name that the coordinator made up, nor its key in the place of another hospital's."""
    own = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    invented = Liar(five, hospitals={**KEYS, "ghost": own}, threshold=4)
    with pytest.raises(NotAgreedError, match="found ghost, whose key it has not: get the key from that hospital"):
        invented.enter()
    replaced = Liar(five, hospitals={**KEYS, "zenith": own})
    with pytest.raises(NotAgreedError, match=r"the key that east has of zenith .* somebody may be in its place"):
        replaced.enter()


def test_a_sum_of_few_is_refused_at_its_beginning_and_at_its_end(tmp_path: Path) -> None:
    careful = {name: hospital(name, tmp_path, fewest=4) for name in NAMES}
    with pytest.raises(NotAgreedError, match=r"at least 4 hospitals in a secure sum \(secure_sums.fewest\), found 3"):
        Liar(careful, NAMES[:3]).enter()
    whole = Liar(careful)
    whole.mask()
    with pytest.raises(NotAgreedError, match="at least 4 hospitals"):
        whole.ask("east", Survivors(hospitals=NAMES[:3]))


def test_an_earlier_session_is_not_entered_again(five: dict[str, Summing]) -> None:
    """With it, signatures of that time would hold."""
    first = Liar(five)
    first.enter()
    second = Liar(five)
    second.session, second.nonces = first.session, first.nonces
    with pytest.raises(NotAgreedError, match="a secure sum with a new name"):
        second.enter()


def test_a_hospital_told_alive_is_not_told_dropped_afterwards(five: dict[str, Summing]) -> None:
    """Two sets in one sum: the second is refused, and so is everything after it."""
    lying = Liar(five)
    lying.mask()
    everyone = Survivors(hospitals=NAMES)
    signed = [lying.ask(name, everyone) for name in NAMES]
    assert lying.ask("east", everyone) == signed[0]  # the same question has the same answer
    with pytest.raises(NotAgreedError, match="leaves the secure sum"):
        lying.ask("east", Survivors(hospitals=NAMES[:4]))
    with pytest.raises(NotAgreedError, match="the beginning of a secure sum"):
        lying.ask("east", lying.coordinator.agreements(signed))


def test_sums_that_differ_by_one_hospital_are_not_signed(five: dict[str, Summing]) -> None:
    """The difference of two sums would be one update; a hospital knows that also after a restart."""
    assert summed(Post(five)).tolist() == exact(NAMES)
    again = {name: hospital(name, five["east"]._record._path.parent) for name in NAMES}
    assert summed(Post(again)).tolist() == exact(NAMES)  # the coordinator had been killed: the same sum is no secret
    with pytest.raises(StudyError, match=r"at least 3 hospitals .* found [01]"):
        summed(Post(again, {"zenith": "Delivery"}))
    smaller = Liar(again, NAMES[:3])
    with pytest.raises(
        NotAgreedError,
        match=r"of east, north, south, west, zenith, which was signed .* found one of east, north, south, and",
    ):
        smaller.enter()


def test_a_sum_that_nobody_signed_may_be_made_of_others(five: dict[str, Summing]) -> None:
    leaving = dict.fromkeys(NAMES[:3], "Delivery")
    with pytest.raises(StudyError, match="found 2"):
        summed(Post(five, leaving))
    assert summed(Post(five), NAMES[:4]).tolist() == exact(NAMES[:4])


def test_a_step_out_of_turn_or_of_another_process_is_refused(five: dict[str, Summing]) -> None:
    with pytest.raises(NotAgreedError, match="this process is new"):
        five["east"].answer(Parcel("sum", {}, {MESSAGE: b""}))
    liar = Liar(five)
    with pytest.raises(NotAgreedError, match="the session of a secure sum first"):
        liar.ask("east", Survivors(hospitals=NAMES))
    liar = Liar(five)
    liar.enter()
    with pytest.raises(NotAgreedError, match="one session in a secure sum, found another"):
        liar.ask("east", liar.session.model_copy(update={"bits": 20}))
    with pytest.raises(NotAgreedError, match="found other bytes"):
        Liar(five).hospitals["east"].answer(Parcel("sum", {}, {MESSAGE: b"none"}))
    with pytest.raises(StudyError, match="with its own key"):
        Participant("east", IDENTITIES["west"], liar.session)
