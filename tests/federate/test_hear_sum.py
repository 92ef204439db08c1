"""A round by a secure sum with hospitals elsewhere: the same files as in a simulation, and no update comes in."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_federate_step import FEDERATION, HOSPITALS, PLAIN, Round, one_round  # noqa: F401

from tasks.federate.privacy.masked import vector_of
from tasks.federate.privacy.step import sum_in_secret
from tasks.federate.remote.parcel import Parcel, linked
from tasks.federate.remote.step import hear_sum, hear_trained
from tasks.federate.remote.sum_record import SumRecord
from tasks.federate.remote.summing import Summing
from tasks.federate.state import read_update
from tasks.settings import LocalRule
from tasks.store import Ref


class Hospitals:
    """Hospitals that have trained, each of which sums by its own keys."""

    def __init__(self, trained: dict[str, Ref], place: Path) -> None:
        self.trained = trained
        identities = {name: Ed25519PrivateKey.generate() for name in trained}
        public = {name: key.public_key().public_bytes_raw() for name, key in identities.items()}
        self.sums = {
            name: Summing(
                name,
                key,
                {other: public[other] for other in public if other != name},
                2,
                SumRecord(place / f"{name}.json"),
            )
            for name, key in identities.items()
        }

    def ask(self, hospital: str, request: Parcel) -> Parcel:
        sums, update = self.sums[hospital], self.trained[hospital]
        if request.kind == "train":
            return Parcel("done", {"update": sums.key.hex(), "key": sums.key.hex()})
        if request.kind == "offer":
            number = request.about["round"]
            nonce = sums.begin(number, hospital, lambda: vector_of(read_update(update.folder, tensors=True)))
            return Parcel("done", {"nonce": nonce})
        return sums.answer(request)

    def close(self) -> None:
        """Nobody waits."""


def files(ref: Ref) -> dict[str, bytes]:
    return {name: (ref.folder / name).read_bytes() for name in ref.manifest()["files"]}


@pytest.mark.parametrize("local", [PLAIN, LocalRule(frozen="A")])
def test_the_mean_has_the_bytes_of_a_simulation(local: LocalRule, one_round: Round, tmp_path: Path) -> None:  # noqa: F811
    trained = {name: one_round.train(name, local=local) for name in HOSPITALS}
    given = {name: one_round.given(name, one_round.start, FEDERATION) for name in HOSPITALS}
    common = {name: value for name, value in given["north"].items() if name != "hospital"} | {
        "local": local,
        "keeps": (),
    }
    with linked(Hospitals(trained, tmp_path)):
        told = [hear_trained.fn(hospital=given[name]["hospital"], **common) for name in HOSPITALS]
        heard = hear_sum.fn(hospitals=[each["hospital"] for each in given.values()], trained=told, **common)
    assert files(heard) == files(sum_in_secret.fn(updates=list(trained.values()), round_number=1))
    assert [set(files(each)) for each in told] == [{"trained.json"}] * 2
