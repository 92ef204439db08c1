"""What noise hides in a run's adapters, and how well."""

from collections.abc import Sequence

from tasks.records.run_document import PrivacyOfRun
from tasks.records.shared_documents import PrivacyDocument

HIDDEN = {
    "example": "one training case (not a patient, who may have several)",
    "patient": "all training cases of one patient",
    "hospital": "one hospital with all that it has",
}
NOTHING = (
    "No differential privacy was applied, so that no formal bound holds on what the adapter reveals of its training "
    "cases."
)


def privacy_of_run(shared: Sequence[PrivacyDocument]) -> PrivacyOfRun | None:
    """The `privacy` of `results.json`; None where no noise was added.

    Hospitals' cases are different ones, so that what holds for all of them is the largest epsilon.
    """
    if not shared:
        return None
    first = shared[0]
    return {
        "unit": first["unit"],
        "epsilon": max(each["epsilon"] for each in shared),
        "delta": first["delta"],
        "clip": first["clip"],
        "accountant": first["accountant"],
        "rounds": first["rounds"],
        "hospitals": {each["hospital"]: each for each in shared},
    }


def privacy_sentence(privacy: PrivacyOfRun | None) -> str:
    """What is promised of the adapters, in words."""
    if privacy is None:
        return NOTHING
    return (
        f"Differential privacy of the adapters: epsilon {privacy['epsilon']:.2f}, delta {privacy['delta']:g} "
        f"({privacy['accountant'].upper()}) hide {HIDDEN[privacy['unit']]}, after {privacy['rounds']} rounds. Counts, "
        "losses and scores are told without noise."
    )


def privacy_rows(privacy: PrivacyOfRun) -> list[tuple[str, ...]]:
    """The budgets as text, headings first."""
    head = ("noise of", f"{privacy['unit']}s", "chance in a step", "steps", "sigma", "epsilon")
    return [
        head,
        *(
            (
                name,
                f"{each['units']:,}",
                f"{each['rate']:.3f}",
                f"{each['rounds'] * each['steps']:,}",
                f"{each['sigma']:.3f}",
                f"{each['epsilon']:.2f}",
            )
            for name, each in privacy["hospitals"].items()
        ),
    ]
