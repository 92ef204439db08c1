"""The coordinator's flow of a federation whose hospitals are on machines of their own."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.task_runners import ThreadPoolTaskRunner

from flows.coordinator import Federated, federate
from flows.gone import HOOKS
from flows.losses import round_losses, round_table, write_losses
from flows.mapped import all_alike
from flows.parts import within_part
from flows.personal import check_personal_layers
from flows.privacy import protect, spent
from flows.progress import Steps
from flows.runtimes.flower.runtime import Flower, answered
from flows.shared_artifacts import refuse_shared
from flows.start import given_adapter, refuse_no_adapter
from flows.suitable import check_strategy
from tasks.engine.identity import choose_model
from tasks.errors import StudyError
from tasks.federate.remote.files import SCORES
from tasks.federate.remote.images_by_link import compare_images
from tasks.federate.remote.parcel import Parcel, ask_each, linked
from tasks.federate.remote.step import hear_privacy, hear_scores, note_hospital
from tasks.federate.step import initial_adapter
from tasks.records.federation import TOGETHER, HospitalRefs
from tasks.records.run_document import ConfigurationScores, StartOfRun
from tasks.records.shared_documents import ScoresDocument
from tasks.records.text_table import markdown_table
from tasks.report.privacy import privacy_of_run
from tasks.report.results import score_table
from tasks.settings import FederationSettings, ModelChoice, Study
from tasks.settings.participation import ParticipationSettings
from tasks.store import Ref, writing
from tasks.store.runs import new_name, point_latest
from tasks.text.wording import counted

logger = logging.getLogger("fed_rag")
ELSEWHERE = Study(federation=FederationSettings(runtime="flower"))
"""The study of the default settings, with hospitals on machines of their own."""
NOT_TOLD: dict[str, Any] = {"seconds": 0.0, "bytes_down": 0, "bytes_up": 0, "asked": [], "missing": {}}
"""What a hospital's page shows of a round and is not its business."""


@flow(
    name="federation",
    flow_run_name="federation {study.configuration} seed {study.seed}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
    **HOOKS,
)
def federation(study: Study = ELSEWHERE, keys: Path = Path("keys"), listen: str = "127.0.0.1:9092") -> str:
    """Train one adapter with the hospitals whose keys are registered, each on its own machine.

    Returns the folder of the finished run. What hospitals sent is kept: a run that was ended, however, goes on from the
    last finished round. Raises StudyError if a hospital refuses, with its sentence.

    Args:
        study: its settings; those of data are the hospitals' own.
        keys: the folder that `fed-rag coordinator keys` made.
        listen: the address and port on which hospitals are awaited.
    """
    from flows.runtimes.flower.keys import SERVER, check_certificate, read_nodes, read_server
    from flows.runtimes.flower.link import GridLink
    from flows.runtimes.flower.superlink import superlink

    nodes, certificates = read_nodes(keys), read_server(keys)
    if soon := check_certificate(keys / SERVER):
        logger.warning(soon)
    study = of_hospitals(study, len(nodes))
    refuse_no_adapter(study)
    with superlink(listen, certificates, nodes) as fleet:
        logger.info("listening on %s for %s", fleet.address, ", ".join(nodes))
        link = GridLink(fleet.grid, fleet.nodes, about(study), fleet.grid.session, study.federation.round_timeout_s)
        with linked(link):
            return train_with(study, list(nodes))


def of_hospitals(study: Study, count: int) -> Study:
    """The study with so many hospitals on machines of their own. Raises StudyError if it does not travel."""
    values = study.model_dump()
    values["partition"]["hospitals"], values["federation"]["runtime"] = count, "flower"
    try:
        return Study.model_validate(values)
    except ValueError as error:
        reason = str(error).split("Value error, ")[-1].split(" [type=")[0]
        raise StudyError(f"These settings do not fit: {reason}.") from None


def about(study: Study) -> dict[str, Any]:
    """What every request tells a hospital of the study: no other hospital's name, and nothing of files here."""
    values = study.model_dump(mode="json")
    values["dataset"] = Study().dataset.model_dump(mode="json")
    values["lora"]["ranks"] = {}  # a hospital's own is in its orders
    values["federation"] |= ParticipationSettings().model_dump(mode="json") | {"initial_adapter": None}
    return {"study": values, "base": choose_model(study.model).content}


def train_with(study: Study, hospitals: list[str]) -> str:
    """Run a study with hospitals that are reached by the link of this context; returns the folder of the run."""
    refuse_shared("at a coordinator")
    check_strategy(study)
    model = choose_model(study.model)
    steps = Steps("federation-progress", total=study.federation.rounds + 3 + study.federation.compare_images)
    start, told = start_of(study, model)
    met = meet(start, hospitals)
    steps.done(f"{counted(len(met), 'hospitals')} agreed: {', '.join(hospitals)}")
    shared = compare_images(hospitals) if study.federation.compare_images else None
    if shared is not None:
        steps.done(f"hospitals compared images: {in_words(shared)}")
    check_personal_layers(study, met[0].adapter)
    allowed, budgets = study, list[Ref]()
    if study.federation.privacy.unit == "hospital":  # the server's noise; hospitals see to their own
        allowed, met, budgets = protect(study, met)
    federated = federate(allowed, model, met, steps, Flower(study.federation.secure_aggregation))
    spending = hear_all_spent(study, federated) + spent(budgets, federated.rows)
    scored = hear_all_scores(study, model, federated)
    steps.done(f"{counted(len(scored), 'hospitals')} told scores")
    run = write_federation(study, model, federated, scored, told, spending, shared)
    show(federated)
    point_latest(run)  # last, so that the link leads to a complete run
    steps.done(f"wrote {run}")
    return str(run)


def start_of(study: Study, model: ModelChoice) -> tuple[Ref, StartOfRun | None]:
    """The adapter that all hospitals start from, and what is told of it: None of a fresh one."""
    if study.federation.initial_adapter:
        return given_adapter(study, model, study.federation.initial_adapter)
    return initial_adapter(model=model, lora=study.lora, seed=study.seed), None


def in_words(shared: Mapping[str, int | None]) -> str:
    """How many test images of each hospital others train on, in words."""
    counts = {name: "withheld" if count is None else str(count) for name, count in shared.items()}
    return "test images that others train on: " + ", ".join(f"{name} {count}" for name, count in counts.items())


def meet(start: Ref, hospitals: Sequence[str]) -> list[HospitalRefs]:
    """Tell every hospital what the study is, all at once, and note what it tells; all start from one adapter.

    What a hospital told stands for its folders here: they stay where they are. Raises StudyError if one refuses.
    """
    noted = []
    for name, answer in ask_each(dict.fromkeys(hospitals, Parcel("meet"))).items():
        if answer.about.get("name") != name:
            raise StudyError(
                f"Expected {name} to answer by its name, found another: its settings must have the name of its key."
            )
        data = json.dumps({"data": str(answer.about.get("data"))})
        place = note_hospital(hospital=name, told=data)
        noted.append(HospitalRefs(name=name, cases=place, features=place, library=place, adapter=start))
    return noted


def hear_all_scores(study: Study, model: ModelChoice, federated: Federated) -> list[ScoresDocument]:
    """Let every hospital score its own test cases; returns what they told, without those that tell no scores."""

    def hear() -> list[Ref]:
        names = [hospital.name for hospital in federated.trained]
        member = [[at for at, there in enumerate(federated.members, 1) if name in there] for name in names]
        needed = {"ditto": study.federation.rounds, "mixture": 1}.get(study.federation.personal, 0)
        hearing = hear_scores.map(
            hospital=federated.trained,
            member=member,
            starts=[[federated.starts[at - 1] for at in each[:needed]] for each in member],
            **all_alike(
                {
                    "model": model,
                    "lora": study.lora,
                    "context": study.retrieval.context,
                    "evaluation": study.evaluation,
                    "personal": study.federation.personalising,
                    "rounds": json.dumps([told_of(row) for row in federated.rows]),
                    "seed": study.seed,
                }
            ),
        )
        return answered(hearing, [hospital.name for hospital in federated.trained])

    heard = within_part("evaluate", hear, at_once=Flower.at_once)
    files = [ref.folder / SCORES for ref in heard]
    return [json.loads(path.read_text(encoding="utf-8")) for path in files if path.exists()]


def told_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What hospitals are told of a round, for their own pages: nothing of another one alone."""
    together = {"samples": {TOGETHER: sum(row["samples"].values())}, "quarantined": {}}
    return {name: row[name] for name in ("round", "train_loss", "eval_loss", "lost_share")} | NOT_TOLD | together


def hear_all_spent(study: Study, federated: Federated) -> list[Ref]:
    """Let every hospital tell the epsilon of its rounds, as it computes it; nothing where it trains without noise."""
    if study.federation.privacy.unit == "none":
        return []

    def hear() -> list[Ref]:
        common = all_alike({"federation": study.federation, "seed": study.seed})
        hearing = hear_privacy.map(hospital=federated.trained, **common)
        return answered(hearing, [hospital.name for hospital in federated.trained])

    return within_part("privacy", hear, at_once=Flower.at_once)


def write_federation(
    study: Study,
    model: ModelChoice,
    federated: Federated,
    scored: Sequence[ScoresDocument],
    start: StartOfRun | None,
    spending: Sequence[Ref],
    shared: Mapping[str, int | None] | None,
) -> Path:
    """Write the run of a federation: settings, rounds, losses, scores, and where its adapter is; returns its folder.

    `spending` are the folders that tell what was spent of privacy, and `shared` how many test images of each hospital
    others train on, if they were compared.
    """
    run = new_name()
    base = {"name": study.model.name, "revision": study.model.revision, "content": model.content}
    names = [hospital.name for hospital in federated.trained]
    with writing("", "runs", run) as folder:
        folder.write_json("settings.json", study.model_dump(mode="json"))
        document: dict[str, Any] = {"run": run, "model": base, "start": start, "hospitals": names}
        document |= {"rounds": federated.rows, "scores": _table(scored)}
        if shared is not None:
            document["test_images_trained_elsewhere"] = dict(shared)
        told = [json.loads((ref.folder / "privacy.json").read_text(encoding="utf-8")) for ref in spending]
        if privacy := privacy_of_run(told):
            document["privacy"] = privacy
        folder.write_json("federation.json", document)
        folder.write_json("references.json", {"adapter": federated.state.path, "hospitals": {}})
        write_losses(folder, round_losses(federated.rows))
    return folder.ref.folder


def _table(scored: Sequence[ScoresDocument]) -> dict[str, ConfigurationScores]:
    """The scores of all hospitals together, and of each. Raises StudyError if a hospital told something else."""
    try:
        return score_table(scored)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StudyError(
            "Expected scores in the hospitals' answers, found something else: install the same version of fed-rag at "
            "the coordinator and at every hospital."
        ) from None


def show(federated: Federated) -> None:
    """Show the rounds in the dashboard."""
    rows = round_table(federated.rows)
    table: list[list[Any]] = [list(rows[0]), *(list(row.values()) for row in rows)]
    create_markdown_artifact(markdown=markdown_table(table), key="federation", description="The rounds")
