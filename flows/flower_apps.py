"""Flower's apps, for a site that runs SuperLink and SuperNodes of its own and starts studies with `flwr run`.

`[tool.flwr.app]` in pyproject.toml names them. Each node's `hospital` (`--node-config`) is a folder with settings as
`fed-rag hospital init` writes them. Flower starts a process for each message, which loads the base anew.
"""

import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from flows.cli.hospital import open_folder
from flows.cli.settings_file import load_study
from flows.cli.terminal import flow_running
from flows.parts import within_part
from flows.runtimes.flower.link import POLL_S, GridLink
from flows.runtimes.flower.wire import reply_to
from tasks.errors import StudyError
from tasks.federate.remote.parcel import Parcel, linked

client = ClientApp()
server = ServerApp()


@client.query("meet")
@client.train()
@client.evaluate("validate")
@client.evaluate()
@client.query("privacy")
def answer(message: Message, context: Context) -> Message:
    """Do what a coordinator asks, by the settings in the node's folder."""
    from flows.resident import Resident

    with flow_running():
        return reply_to(message, Resident(open_folder(_folder(str(context.node_config["hospital"])))).answer)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run a study with as many hospitals as the run's `hospitals` says, by the settings file that it names, if any."""
    from flows.federation import about, of_hospitals, train_with

    count, file = int(context.run_config["hospitals"]), str(context.run_config["settings"])
    study = of_hospitals(load_study(Path(file) if file else None), count)
    for name, what in (("secure_aggregation", "a secure sum"), ("compare_images", "a comparison of images")):
        if getattr(study.federation, name):
            raise StudyError(
                f"Expected federation.{name}=false with `flwr run`, which starts a process for each message, while "
                f"{what} takes several: run `fed-rag hospital join` at the hospitals instead."
            )
    with flow_running():
        told = about(study)
        nodes = introduced(grid, count, told)
        with linked(GridLink(grid, nodes, told, within=study.federation.round_timeout_s)):
            within_part("federation", lambda: train_with(study, sorted(nodes)))


def introduced(grid: Grid, count: int, about: Mapping[str, Any]) -> dict[str, int]:
    """The numbers of the first nodes that connect, so many, by the name that each hospital tells.

    Raises StudyError if two have the same name, or one refuses.
    """
    while len(connected := sorted(grid.get_node_ids())) < count:
        time.sleep(POLL_S)
    link = GridLink(grid, {str(node): node for node in connected[:count]}, about)
    found: dict[str, int] = {}
    for node in connected[:count]:
        told = link.ask(str(node), Parcel("meet"))
        if told.kind == "refused":
            raise StudyError(f"A hospital refused: {told.about['reason']}")
        name = str(told.about["name"])
        if name in found:
            raise StudyError(f"Expected each hospital once, found two of the name {name}: rename one in its settings.")
        found[name] = node
    return found


@cache
def _folder(path: str) -> Path:
    """The folder, absolute as it was when it was first asked for: opening it changes the working directory."""
    return Path(path).absolute()
