"""What left with noise is counted at the hospital, whatever a coordinator asks for, and adds up over studies."""

from pathlib import Path

import pytest

from tasks.federate.privacy.accounting import epsilon, epsilon_in_all
from tasks.federate.privacy.budget import Budget
from tasks.federate.remote.agreement import NotAgreedError
from tasks.federate.remote.release_record import ReleaseRecord


def budget(unit: str = "example", sigma: float = 1.0, rounds: int = 2) -> Budget:
    return Budget("north", unit, 500, 0.1, 5, 1.0, sigma, 1e-5, "rdp", rounds)  # type: ignore[arg-type]


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
def test_parts_of_one_noise_are_worth_what_they_are_worth_together(accountant: str) -> None:
    whole = epsilon(1.1, 0.05, 30, 1e-5, accountant)  # type: ignore[arg-type]
    parts = epsilon_in_all([(1.1, 0.05, 10), (1.1, 0.05, 20), (9, 1, 0)], 1e-5, accountant)  # type: ignore[arg-type]
    assert parts == pytest.approx(whole, rel=1e-3)
    assert epsilon_in_all([(1.1, 0.05, 30), (5.0, 1, 1)], 1e-5, accountant) > whole  # type: ignore[arg-type]
    assert epsilon_in_all([], 1e-5) == 0


def test_a_round_that_is_asked_for_anew_spends_and_one_that_is_sent_again_does_not(tmp_path: Path) -> None:
    path = tmp_path / "hospitals/north/spent.json"
    for update in ("a", "b", "a", "b"):
        ReleaseRecord(path).release(update, "study", budget(), most=None)
    assert ReleaseRecord(path).rounds("study") == 2
    with pytest.raises(NotAgreedError, match="at most 2 updates of a study within its epsilon, found one more"):
        ReleaseRecord(path).release("c", "study", budget(), most=None)
    assert (ReleaseRecord(path).rounds("study"), ReleaseRecord(path).rounds("another")) == (2, 0)
    ReleaseRecord(path).release("b", "study", budget(), most=None)


def test_studies_add_up_to_no_more_than_was_agreed(tmp_path: Path) -> None:
    """As much as one training of so many steps, and units on their own."""
    record, most = ReleaseRecord(tmp_path / "spent.json"), epsilon(1.0, 0.1, 15, 1e-5, "rdp") + 1e-6
    for study in ("one", "two", "three"):
        record.release(f"of {study}", study, budget(), most)
    with pytest.raises(NotAgreedError) as refused:
        record.release("of four", "four", budget(), most)
    told = f"at most {most:g} in all studies together, as it agreed to, found {epsilon(1.0, 0.1, 20, 1e-5, 'rdp'):.2f}"
    assert told in str(refused.value)
    record.release("hidden patients", "four", budget("patient"), most)
    with pytest.raises(NotAgreedError):
        record.release("louder", "five", budget(sigma=4.0), most)
    assert record.rounds("five") == 0
