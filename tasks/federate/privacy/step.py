"""The stages of privacy: budgets of noise before the rounds and after them, and a sum that hides its parts."""

from tasks.federate.step import SENT
from tasks.records.federation import CONFIG_FILE, write_counts
from tasks.records.shared_documents import BudgetDocument, PrivacyDocument
from tasks.records.shared_files import UPDATE
from tasks.settings import FederationSettings
from tasks.store import Ref
from tasks.store.leaving import Document, Files
from tasks.store.stage import Folder, stage

BUDGET: Files = {"privacy.json": Document(BudgetDocument)}
"""The file of a budget before the rounds."""


@stage("privacy", area="shared", title="privacy budget of {hospital}", leaves=("counts",), writes=BUDGET)
def plan_privacy(folder: Folder, hospital: str, cases: Ref, federation: FederationSettings, seed: int) -> None:
    """Find the noise that a hospital trains with, and for how many rounds it may: `privacy.json`."""
    from tasks.cases.holdout import split_holdout
    from tasks.federate.privacy.budget import FILE, budget_of, to_json
    from tasks.federate.privacy.units import units_of
    from tasks.records import Case, read_table

    training, _ = split_holdout(
        read_table(cases.folder / "cases.parquet", Case), federation.holdout, federation.held_out_by(seed)
    )
    units = units_of(training, federation.privacy.unit)
    folder.write_json(FILE, to_json(budget_of(hospital, len(units), federation)))


@stage("privacy", area="shared", title="privacy budget of the coordinator", leaves=(), writes=BUDGET)
def plan_server_privacy(folder: Folder, hospitals: int, federation: FederationSettings) -> None:
    """Find the noise that the server adds to hide any one hospital, and for how many rounds: `privacy.json`."""
    from tasks.federate.privacy.budget import FILE, budget_of, to_json
    from tasks.federate.privacy.secret import COORDINATOR

    folder.write_json(FILE, to_json(budget_of(COORDINATOR, hospitals, federation)))


@stage(
    "privacy-spent",
    area="shared",
    title="privacy spent by {hospital}",
    leaves=("counts",),
    writes={"privacy.json": Document(PrivacyDocument)},
)
def count_privacy(folder: Folder, hospital: str, budget: Ref, rounds: int) -> None:
    """What a hospital's rounds cost: its budget with `spent`, epsilon after them."""
    from tasks.federate.privacy.budget import FILE, read_budget, to_json

    found = read_budget(budget.folder)
    folder.write_json(FILE, to_json(found) | {"rounds": rounds, "epsilon": found.spent(rounds)})


@stage("secure-mean", area="shared", title="secure sum round {round_number}", leaves=SENT, writes=UPDATE)
def sum_in_secret(folder: Folder, updates: list[Ref], round_number: int) -> None:
    """Mask each hospital's update, add them up, and write their mean as one update of all hospitals together."""
    from tasks.federate.privacy.masked import masked_mean
    from tasks.federate.state import read_update, write_state

    mean, counts = masked_mean([read_update(ref.folder, tensors=True) for ref in updates])
    write_state(folder, mean)
    folder.write(CONFIG_FILE, (updates[0].folder / CONFIG_FILE).read_bytes())
    write_counts(folder, "", counts)
