"""Secure sums: exact within the stated bound with any dropouts, and closed to a coordinator that lies."""

import contextlib
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from tasks.errors import StudyError
from tasks.federate.privacy.secure_aggregation.coordinator import Coordinator
from tasks.federate.privacy.secure_aggregation.fixed_point import FixedPoint
from tasks.federate.privacy.secure_aggregation.keys import CHUNK
from tasks.federate.privacy.secure_aggregation.messages import (
    Agreements,
    Delivery,
    KeyList,
    MaskedUpdate,
    Message,
    PublicKeys,
    Revealed,
    SealedShares,
    Session,
    Survivors,
    majority,
    pack,
    unpack,
)
from tasks.federate.privacy.secure_aggregation.participant import Participant
from tasks.federate.privacy.secure_aggregation.shamir import join, split

Vectors = Mapping[str, NDArray[np.float64]]
IDENTITIES = {f"hospital-{n}": Ed25519PrivateKey.generate() for n in range(12)}
FIVE = list(IDENTITIES)[:5]


def session_of(names: Collection[str], length: int = 3, threshold: int | None = None, name: str = "sum") -> Session:
    public = {each: IDENTITIES[each].public_key().public_bytes_raw() for each in names}
    return Session(name=name, hospitals=public, threshold=threshold or majority(len(names)), length=length)


def sent(message: Any) -> Any:
    """The message as it comes out at the other end."""
    return unpack(pack(message))


@dataclass
class Sum:
    """An honest sum up to the step that a test is about."""

    session: Session

    def __post_init__(self) -> None:
        self.participants = {name: Participant(name, IDENTITIES[name], self.session) for name in self.session.hospitals}
        self.coordinator = Coordinator(self.session)

    def share(self, gone: Collection[str] = ()) -> dict[str, Delivery]:
        keys = [sent(each.advertise()) for each in self.participants.values()]
        self.keys: KeyList = sent(self.coordinator.list_keys(keys))
        self.shares = [sent(self.participants[name].share(self.keys)) for name in self.participants if name not in gone]
        return self.coordinator.deliver(self.shares)

    def mask(self, vectors: Vectors, gone: Collection[str] = ()) -> dict[str, MaskedUpdate]:
        delivered = {name: sent(each) for name, each in self.share().items() if name not in gone}
        return {name: sent(self.participants[name].mask(each, vectors[name])) for name, each in delivered.items()}

    def agree(self, vectors: Vectors, gone: Collection[str] = ()) -> Agreements:
        for each in self.mask(vectors, gone).values():
            self.coordinator.add(each)
        survivors = sent(self.coordinator.survivors())
        agreed = [self.participants[name].agree(survivors) for name in survivors.hospitals]
        return self.coordinator.agreements(agreed)

    def total(self, vectors: Vectors, gone: Collection[str] = (), silent: Collection[str] = ()) -> NDArray[np.float64]:
        agreements = sent(self.agree(vectors, gone))
        names = [name for name in self.participants if name not in {*gone, *silent}]
        revealed = [sent(self.participants[name].reveal(agreements)) for name in names]
        return self.coordinator.unmask(revealed)


def drawn(names: Sequence[str], length: int = 3, scale: float = 1.0) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, scale, length) for name in names}


def check(found: NDArray[np.float64], vectors: Sequence[NDArray[np.float64]], terms: int) -> None:
    """Against the sum in rational numbers, which is exact."""
    for place, value in enumerate(found):
        exact = sum(Fraction(float(vector[place])) for vector in vectors)
        assert abs(Fraction(float(value)) - exact) <= Fraction(FixedPoint(terms).error_bound(float(exact)))


@pytest.mark.parametrize("gone", [each for n in range(3) for each in itertools.combinations(FIVE, n)])
def test_the_masked_sum_is_the_plain_sum_for_every_subset_of_dropouts(gone: tuple[str, ...]) -> None:
    vectors = drawn(FIVE)
    found = Sum(session_of(FIVE)).total(vectors, gone)
    check(found, [vectors[name] for name in FIVE if name not in gone], 5)


@pytest.mark.parametrize("gone", [each for n in (3, 4, 5) for each in itertools.combinations(FIVE, n)])
def test_fewer_than_the_threshold_are_not_summed(gone: tuple[str, ...]) -> None:
    with pytest.raises(
        StudyError, match=rf"Expected at least 3 hospitals in the secure sum sum, found {5 - len(gone)}"
    ):
        Sum(session_of(FIVE)).total(drawn(FIVE), gone)


def test_hospitals_may_drop_out_in_every_step() -> None:
    names = list(IDENTITIES)[:9]
    each, vectors = Sum(session_of(names)), drawn(names)
    delivered = each.share(gone=names[:1])
    masked = [each.participants[name].mask(delivered[name], vectors[name]) for name in names[2:]]
    for update in masked:
        each.coordinator.add(update)
    survivors = each.coordinator.survivors()
    agreements = each.coordinator.agreements([each.participants[name].agree(survivors) for name in names[3:]])
    revealed = [each.participants[name].reveal(agreements) for name in names[4:]]
    check(each.coordinator.unmask(revealed), [vectors[name] for name in names[2:]], 9)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_number_of_hospitals_and_any_values(data: st.DataObject) -> None:
    count, length = data.draw(st.integers(2, 9)), data.draw(st.integers(1, 5))
    names = list(IDENTITIES)[:count]
    threshold = data.draw(st.integers(majority(count), count))
    largest = FixedPoint(count).largest
    value = st.floats(-largest, largest, exclude_min=True, exclude_max=True)
    vectors = {name: np.array(data.draw(st.lists(value, min_size=length, max_size=length))) for name in names}
    gone = data.draw(st.lists(st.sampled_from(names), unique=True, max_size=count - threshold))
    found = Sum(session_of(names, length, threshold)).total(vectors, gone)
    check(found, [vectors[name] for name in names if name not in gone], count)


def test_two_hospitals_sum_without_dropouts() -> None:
    names = FIVE[:2]
    check(Sum(session_of(names)).total(drawn(names)), list(drawn(names).values()), 2)
    with pytest.raises(StudyError, match="Expected at least 2 hospitals"):
        Sum(session_of(names)).total(drawn(names), gone=names[:1])


def test_masks_are_longer_than_what_is_in_memory_at_once() -> None:
    """Of no two words in sight is one left as it was, nor masked as another."""
    vectors = {name: np.zeros(CHUNK + 500) for name in FIVE[:3]}
    masked = Sum(session_of(FIVE[:3], CHUNK + 500)).mask(vectors)[FIVE[0]]
    assert len(np.unique(np.frombuffer(masked.words, dtype=np.uint64))) == CHUNK + 500
    vectors = drawn(FIVE[:3], length=CHUNK + 5)
    found = Sum(session_of(FIVE[:3], CHUNK + 5)).total(vectors, gone=FIVE[:1])
    np.testing.assert_allclose(found, vectors[FIVE[1]] + vectors[FIVE[2]], rtol=0, atol=FixedPoint(3).error_bound(10))


def test_single_masked_updates_look_uniform() -> None:
    """Bytes of updates that are nearly all zero; the sums of two hospitals of three are masked as well."""
    length = 50_000
    vectors = {name: np.zeros(length) for name in FIVE[:3]}
    masked = Sum(session_of(FIVE[:3], length)).mask(vectors)
    words = {name: np.frombuffer(each.words, dtype=np.uint64) for name, each in masked.items()}
    first, second, third = words.values()
    for hidden in (first, second, third, first + second, first + second + third):
        counts = np.bincount(hidden.view(np.uint8), minlength=256)
        assert chisquare(counts).pvalue > 1e-4
    encoded = FixedPoint(3).encode(vectors[FIVE[0]])
    assert chisquare(np.bincount(encoded.view(np.uint8), minlength=256)).pvalue < 1e-300


def test_no_two_sums_have_the_same_masks() -> None:
    vectors = drawn(FIVE)
    one, other = (Sum(session_of(FIVE)).mask(vectors)[FIVE[0]].words for _ in range(2))
    assert one != other


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**31 / 5, -(2.0**31) / 5, 1e300])
def test_overflow_is_refused(value: float) -> None:
    with pytest.raises(StudyError, match=r"Expected numbers below 4\.29497e\+08 to sum 5 of them in secret, found"):
        FixedPoint(5).encode([0.0, value])
    FixedPoint(5).encode([2.0**31 / 5 - 1])


@given(st.binary(min_size=1, max_size=40), st.integers(1, 6), st.integers(0, 4), st.randoms())
def test_any_shares_up_to_the_threshold_give_the_secret(secret: bytes, threshold: int, more: int, random: Any) -> None:
    shares = split(secret, threshold, range(1, threshold + more + 1))
    kept = dict(random.sample(sorted(shares.items()), threshold))
    assert join(kept, threshold, len(secret)) == secret
    if threshold > 1:
        kept.popitem()
        with pytest.raises(
            StudyError, match=f"Expected {threshold} shares of a hospital's secret, found {threshold - 1}"
        ):
            join(kept, threshold, len(secret))


def test_shares_below_the_threshold_say_nothing() -> None:
    """With any two shares of three, each secret is as likely as the other: some third share would give it."""
    shares = split(b"a secret", 3, [1, 2, 3])
    changed = shares | {3: split(b"another!", 3, [1, 2, 3])[3]}
    with pytest.raises(StudyError, match="Expected shares of one secret"):
        join(changed, 3, 8)
    first = np.array([list(split(bytes(32), 2, [1])[1]) for _ in range(400)])[:, 1:]
    assert chisquare(np.bincount(first.ravel(), minlength=256)).pvalue > 1e-4


# --- A coordinator that lies -----------------------------------------------------------------------------------------


def split_view(each: Sum, victim: str) -> list[Revealed]:
    """Some hospitals are told that the victim is alive, the others that it dropped out.

    With the shares that both would reveal, the coordinator could unmask the victim's update alone.
    """
    told = {name: Survivors(hospitals=tuple(FIVE)) for name in FIVE[:3]}
    told |= {name: Survivors(hospitals=tuple(other for other in FIVE if other != victim)) for name in FIVE[3:]}
    agreed = {
        name: each.participants[name].agree(told[name]).signature for name in FIVE if victim in told[name].hospitals
    }
    agreed |= {name: each.participants[name].agree(told[name]).signature for name in FIVE if name not in agreed}
    revealed = []
    for name in FIVE:
        same_view = {other: agreed[other] for other in FIVE if told[other] == told[name]}
        for signatures in (same_view, agreed):
            try:
                revealed.append(each.participants[name].reveal(Agreements(signatures=signatures)))
                break
            except StudyError:
                continue
    return revealed


def test_a_hospital_told_alive_and_dropped_is_not_unmasked() -> None:
    """Three hospitals hold the view in which the victim lives, which is a sum; the other two reveal nothing."""
    each = Sum(session_of(FIVE))
    each.mask(drawn(FIVE))
    revealed = split_view(each, FIVE[0])
    assert {one.hospital for one in revealed} == set(FIVE[:3])
    assert not any(one.masking for one in revealed)


def test_no_two_sets_have_enough_signatures() -> None:
    """Of six hospitals, three and three are told different sets: nobody reveals anything."""
    names = list(IDENTITIES)[:6]
    each = Sum(session_of(names))
    each.mask(drawn(names))
    told = {name: Survivors(hospitals=tuple(names if n < 3 else names[1:])) for n, name in enumerate(names)}
    signatures = {name: each.participants[name].agree(told[name]).signature for name in names}
    for view, group in itertools.product((names[:3], names[3:], names), (names[:3], names[3:])):
        with pytest.raises(StudyError, match="leaves the secure sum sum"):
            each.participants[group[0]].reveal(Agreements(signatures={name: signatures[name] for name in view}))


def refused(words: str) -> Any:
    return pytest.raises(StudyError, match=rf"hospital-0 leaves the secure sum sum: expected {words}")


def test_nothing_is_revealed_twice() -> None:
    each = Sum(session_of(FIVE))
    agreements = each.agree(drawn(FIVE))
    each.participants[FIVE[0]].reveal(agreements)
    with refused("no further step, found step 5"):
        each.participants[FIVE[0]].reveal(agreements)
    with refused("no further step, found step 4"):
        each.participants[FIVE[0]].agree(Survivors(hospitals=tuple(FIVE[:3])))


@pytest.mark.parametrize(
    ("survivors", "words"),
    [
        (FIVE[:2], "at least 3 hospitals that survived, found 2"),
        (FIVE[1:], "survivors that sent shares, with hospital-0 among them"),
        ([*FIVE, "hospital-9"], "hospitals of the session alone"),
        ([FIVE[0], FIVE[0], FIVE[1], FIVE[2]], "survivors that sent shares"),
    ],
)
def test_sets_that_are_too_small_or_foreign_are_not_signed(survivors: list[str], words: str) -> None:
    each = Sum(session_of(FIVE))
    each.mask(drawn(FIVE))
    with refused(words):
        each.participants[FIVE[0]].agree(Survivors(hospitals=tuple(survivors)))
    with refused("no further step, found step 5"):
        each.participants[FIVE[0]].reveal(Agreements(signatures={}))


def forged(signatures: dict[str, bytes]) -> dict[str, bytes]:
    return dict.fromkeys(signatures, signatures[FIVE[0]])


def too_few(signatures: dict[str, bytes]) -> dict[str, bytes]:
    return dict(itertools.islice(signatures.items(), 2))


def with_a_stranger(signatures: dict[str, bytes]) -> dict[str, bytes]:
    return signatures | {"hospital-9": bytes(64)}


@pytest.mark.parametrize("change", [forged, too_few, with_a_stranger, lambda _: {}])
def test_signatures_are_checked(change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
    each = Sum(session_of(FIVE))
    agreements = each.agree(drawn(FIVE))
    with refused("(survivors' signatures|at least 3 hospitals that signed)"):
        each.participants[FIVE[0]].reveal(Agreements(signatures=change(agreements.signatures)))


def test_signatures_of_another_sum_are_worth_nothing() -> None:
    yesterday, today = Sum(session_of(FIVE, name="yesterday")), Sum(session_of(FIVE))
    old = yesterday.agree(drawn(FIVE))
    today.agree(drawn(FIVE))
    with refused("survivors' signatures"):
        today.participants[FIVE[0]].reveal(old)


def keys_of(names: Sequence[str], session: Session) -> list[PublicKeys]:
    return [Participant(name, IDENTITIES[name], session).advertise() for name in names]


@pytest.mark.parametrize("part", ["masking", "sealing", "seed_digest"])
def test_keys_that_the_coordinator_made_are_refused(part: str) -> None:
    session = session_of(FIVE)
    mine, others = Participant(FIVE[0], IDENTITIES[FIVE[0]], session), keys_of(FIVE[1:], session)
    own = mine.advertise()
    (fake,) = keys_of(FIVE[1:2], session)
    exchanged = others[0].model_copy(update={part: getattr(fake, part)})
    with refused("keys that hospital-1 signed"):
        mine.share(KeyList(keys=(own, exchanged, *others[1:])))


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 1, 2], [1, 2, 3, 4], [0, 0, 0]])
def test_lists_of_few_or_repeated_keys_are_refused(order: list[int]) -> None:
    session = session_of(FIVE)
    mine = Participant(FIVE[0], IDENTITIES[FIVE[0]], session)
    keys = [mine.advertise(), *keys_of(FIVE[1:], session)]
    with refused("(at least 3 hospitals that advertised keys|each hospital's own keys once)"):
        mine.share(KeyList(keys=tuple(keys[n] for n in order)))


def test_own_keys_are_not_exchanged() -> None:
    """Keys that this hospital signed in an earlier attempt of the same sum."""
    session = session_of(FIVE)
    mine = Participant(FIVE[0], IDENTITIES[FIVE[0]], session)
    mine.advertise()
    with refused("each hospital's own keys once"):
        mine.share(KeyList(keys=tuple(keys_of(FIVE, session))))


def test_shares_that_were_changed_or_exchanged_are_refused() -> None:
    for exchange in (
        lambda sealed: sealed | {FIVE[1]: sealed[FIVE[2]]},
        lambda sealed: sealed | {FIVE[1]: sealed[FIVE[1]][:-1] + bytes([sealed[FIVE[1]][-1] ^ 1])},
        lambda sealed: sealed | {"hospital-9": sealed[FIVE[1]]},
        lambda sealed: {FIVE[1]: sealed[FIVE[1]]},
    ):
        each = Sum(session_of(FIVE))
        delivered = each.share()[FIVE[0]].sealed
        with pytest.raises(StudyError, match="coordinator is at fault"):
            each.participants[FIVE[0]].mask(Delivery(sealed=exchange(delivered)), np.zeros(3))
        with refused("no further step"):
            each.participants[FIVE[0]].mask(Delivery(sealed=delivered), np.zeros(3))


def test_what_a_lying_coordinator_has_is_noise() -> None:
    """All that it can learn up to the refused step: two masked updates whose values are far apart look alike."""
    length = 20_000
    each = Sum(session_of(FIVE, length))
    vectors = {name: np.full(length, 1000.0 * n) for n, name in enumerate(FIVE)}
    masked = each.mask(vectors)
    revealed = split_view(each, FIVE[0])
    total = sum(
        (np.frombuffer(masked[name].words, dtype=np.uint64) for name in FIVE), np.zeros(length, dtype=np.uint64)
    )
    for update in masked.values():
        each.coordinator.add(update)
    np.testing.assert_array_equal(
        each.coordinator.unmask(revealed), np.full(length, 10_000.0)
    )  # the sum of all, agreed
    rest = total - np.frombuffer(masked[FIVE[0]].words, dtype=np.uint64)
    for hidden in (np.frombuffer(masked[FIVE[0]].words, dtype=np.uint64), rest):
        assert chisquare(np.bincount(hidden.view(np.uint8), minlength=256)).pvalue > 1e-4


# --- Hospitals at fault, and sessions -----------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "gone"), [("seeds", []), ("masking", FIVE[4:])])
def test_wrong_shares_are_noticed(part: str, gone: list[str]) -> None:
    """Of another secret than the hospital announced, and of none."""
    each = Sum(session_of(FIVE))
    agreements = each.agree(drawn(FIVE), gone)
    revealed = [each.participants[name].reveal(agreements) for name in FIVE[:4]]
    other = split(bytes(range(32)), 3, each.session.places.values())
    none = {place: split(bytes(32), 3, [place])[place] for place in other}
    for shares, words in ((other, "that hospital-4 announced"), (none, "of one secret")):
        lies = [{part: getattr(one, part) | {FIVE[4]: shares[each.session.places[one.hospital]]}} for one in revealed]
        with pytest.raises(StudyError, match=words):
            each.coordinator.unmask([one.model_copy(update=lie) for one, lie in zip(revealed, lies, strict=True)])


def test_a_masked_update_counts_once_and_has_its_length() -> None:
    each = Sum(session_of(FIVE))
    first = each.mask(drawn(FIVE))[FIVE[0]]
    each.coordinator.add(first)
    with pytest.raises(StudyError, match="found another of hospital-0"):
        each.coordinator.add(first)
    with pytest.raises(StudyError, match="found another of hospital-9"):
        each.coordinator.add(MaskedUpdate(hospital="hospital-9", words=first.words))
    with pytest.raises(StudyError, match="Expected a masked update of 24 bytes, found 16"):
        each.coordinator.add(MaskedUpdate(hospital=FIVE[1], words=first.words[:16]))


def test_sessions_that_protect_nobody_are_refused() -> None:
    for names, threshold, found in ((FIVE, 2, "3 to 5"), (FIVE, 6, "3 to 5"), (FIVE[:4], 2, "3 to 4")):
        with pytest.raises(StudyError, match=f"Expected a threshold from {found} .*, found {threshold}"):
            session_of(names, threshold=threshold)
    with pytest.raises(StudyError, match="Expected at least 2 hospitals for a secure sum, found 1"):
        session_of(FIVE[:1])
    with pytest.raises(StudyError, match="Expected hospital-0 with its own key"):
        Participant(FIVE[0], IDENTITIES[FIVE[1]], session_of(FIVE))
    with pytest.raises(StudyError, match="Expected hospital-9 with its own key"):
        Participant("hospital-9", IDENTITIES["hospital-9"], session_of(FIVE))


def test_vectors_of_another_length_are_refused() -> None:
    each = Sum(session_of(FIVE))
    delivered = each.share()[FIVE[0]]
    with refused(r"3 numbers to mask, found an array of shape \(4,\)"):
        each.participants[FIVE[0]].mask(delivered, np.zeros(4))


@pytest.mark.parametrize("data", [b"", b"\0\0\0\2[]", b"\0\0\0\1{", b"\xff" * 40, pack(session_of(FIVE)) + b"more"])
def test_other_bytes_are_no_message(data: bytes) -> None:
    with pytest.raises(StudyError, match=r"Expected (a|one) message of a secure sum"):
        unpack(data)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(1, 255))
def test_a_changed_message_is_never_another_kind_of_error(place: int, change: int) -> None:
    data = bytearray(pack(SealedShares(hospital="north", sealed={"south": bytes(9), "east": b"12"})))
    data[place % len(data)] ^= change
    with contextlib.suppress(StudyError):
        assert isinstance(unpack(bytes(data)), Message)
