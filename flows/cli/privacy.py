"""Commands about privacy: what differential privacy would cost a study."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from flows.cli.settings_file import load_study
from flows.cli.terminal import AsJson, Assignments, SettingsFile, console
from tasks.settings import Study

if TYPE_CHECKING:
    from tasks.federate.privacy.plan import Plan, Training

privacy_commands = typer.Typer(help="What differential privacy would cost a study.", no_args_is_help=True)


@privacy_commands.command("plan")
def privacy_plan(
    cases: Annotated[int, typer.Option(min=1, help="Training cases of one hospital.")] = 2000,
    patients: Annotated[
        int | None, typer.Option(min=1, help="Patients that these cases are of.", show_default=False)
    ] = None,
    parameters: Annotated[int, typer.Option(min=1, help="Numbers that are trained.")] = 100_000,
    settings: SettingsFile = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Tell noise, epsilon and noise to signal of each unit of privacy, before anything runs.

    Settings that count: federation.rounds, local_epochs, batch_size, federation.privacy.epsilon, delta, sigma, and
    partition.hospitals. docs/privacy.md says what the figures mean.

    Example: fed-rag privacy plan --cases 2000 --patients 500 --set federation.batch_size=64
    """
    from tasks.federate.privacy.plan import plan

    study = load_study(settings, tuple(assignments or ()))
    with console.status("Searching for the least noise ..."):
        plans = [plan(each, study.federation.privacy) for each in trainings(study, cases, patients, parameters)]
    if as_json:
        found = [
            asdict(each)
            | {"noise_to_signal": each.noise_to_signal, "noise_to_signal_at_the_end": each.noise_to_signal_at_the_end}
            | {"hopeless": each.hopeless}
            for each in plans
        ]
        print(json.dumps(found, indent=1))
        return
    _print_plans(study, plans)


def trainings(study: Study, cases: int, patients: int | None, parameters: int) -> "list[Training]":
    """A study's trainings with each unit of privacy, of examples first; of patients where their number is known."""
    from tasks.federate.privacy.plan import Training, steps_of_round

    federation, hospitals = study.federation, study.partition.hospitals
    found = [
        Training(
            unit,
            units,
            min(federation.batch_size, units),
            federation.rounds * steps_of_round(units, federation.batch_size, federation.local_epochs),
            parameters,
            hospitals,
        )
        for unit, units in (("example", cases), ("patient", patients))
        if units
    ]
    return [*found, Training("hospital", hospitals, hospitals, federation.rounds, parameters)]


def _print_plans(study: Study, plans: "list[Plan]") -> None:
    from tasks.federate.privacy.plan import refusal, rows

    privacy = study.federation.privacy
    wanted = f"sigma {privacy.sigma:g}" if privacy.sigma else f"epsilon {privacy.epsilon:g}"
    heading, *body = rows(plans)
    table = Table(
        title=f"Privacy for {wanted}, delta {privacy.delta:g}", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)
    )
    for place, column in enumerate(heading):
        table.add_column(column, justify="right" if 0 < place < len(heading) - 1 else "left", no_wrap=True)
    for row, of in zip(body, plans, strict=True):
        table.add_row(*row[:-1], f"[{'red' if of.hopeless else 'green'}]{row[-1]}[/]")
    console.print(table)
    console.print(
        "RDP, PLD: epsilon by two accountants, bounds both. Noise: its norm over the largest norm that what is "
        f"learned can have, in one step and in all, in the mean of {study.partition.hospitals} hospitals. Above 1 in "
        "all, nothing is learned.",
        style="dim",
        highlight=False,
    )
    for of in plans:
        if of.hopeless:
            console.print(f"\n[red]{of.training.unit}:[/red] {refusal(of, privacy)}", highlight=False)
