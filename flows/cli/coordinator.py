"""Commands of a federation's coordinator: the keys of its hospitals."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.terminal import console, print_place

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
