"""Commands of a federation's coordinator: the keys of its hospitals, and the study with them."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.checks import refuse_absent_model, refuse_without_flower
from flows.cli.settings_file import load_study
from flows.cli.terminal import Assignments, Quiet, SettingsFile, console, flow_running, print_place

coordinator_commands = typer.Typer(help="Coordinate hospitals on machines of their own.", no_args_is_help=True)


@coordinator_commands.command("keys")
def coordinator_keys(
    folder: Annotated[Path, typer.Argument(help="New folder for the keys.")],
    hospital: Annotated[list[str], typer.Option(help="Name of a hospital; may be repeated.")],
    address: Annotated[
        list[str], typer.Option(help="Host name or IP address of the coordinator, as hospitals reach it; repeatable.")
    ],
    days: Annotated[int, typer.Option(min=1, help="Days for which the coordinator's certificate is valid.")] = 365,
) -> None:
    """Make the certificates and keys of a federation: the coordinator's, and a folder to hand to each hospital.

    A hospital that makes its own key (ssh-keygen -t ecdsa -b 384) sends its public key alone, which goes into the
    folder nodes as NAME.pub.

    Example: fed-rag coordinator keys keys --hospital north --hospital south --address coordinator.example.org
    """
    from flows.runtimes.flower.keys import HANDED_OUT, make_keys

    expires = make_keys(folder, hospital, address, days)
    print_place("Keys", folder, f": the coordinator's certificate expires on {expires:%Y-%m-%d}.")
    for name in hospital:
        print_place(f"For {name}", folder / HANDED_OUT / name)
    console.print("Hand each folder to its hospital by a safe way, and remove it here: it holds the hospital's key.")


@coordinator_commands.command("renew")
def coordinator_renew(
    keys: Annotated[Path, typer.Argument(help="Folder that `fed-rag coordinator keys` made.")],
    days: Annotated[int, typer.Option(min=1, help="Days for which the new certificate is valid.")] = 365,
) -> None:
    """Renew the coordinator's certificate, for the same addresses. Hospitals need nothing new.

    A coordinator that is running takes it up when it is started again.

    Example: fed-rag coordinator renew keys
    """
    from flows.runtimes.flower.renewal import renew

    print_place("Certificate", keys, f": it expires on {renew(keys, days):%Y-%m-%d}.")


@coordinator_commands.command("start")
def coordinator_start(
    keys: Annotated[Path, typer.Argument(help="Folder that `fed-rag coordinator keys` made.")],
    listen: Annotated[str, typer.Option(help="Address and port on which hospitals are awaited.")] = "127.0.0.1:9092",
    settings: SettingsFile = None,
    assignments: Assignments = None,
    quiet: Quiet = False,
) -> None:
    """Run a study with the hospitals whose keys are registered, each on its own machine.

    It waits for every hospital to join, trains with all of them, and ends. What they sent is kept: after an
    interruption, the same command goes on from the last finished round. Settings of data are the hospitals' own.

    Example: fed-rag coordinator start keys --listen 10.0.0.7:9092 --set federation.rounds=3
    """
    from flows.runtimes.flower.keys import read_nodes, read_server

    refuse_without_flower()
    study = load_study(settings, (*(assignments or ()), "federation.runtime=flower"))
    refuse_absent_model(study.model)
    for read in (read_nodes, read_server):  # what is wrong with the keys is told before a server starts
        read(keys)
    with flow_running(quiet):
        from flows.federation import federation

        folder = federation(study, keys, listen)
    print_place("Run", Path(folder), " (also artifacts/latest): federation.json, losses.png, references.json")
