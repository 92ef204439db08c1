"""Commands of a hospital on a machine of its own: its settings, what would leave it, and the process that stays."""

import logging
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock, Timeout

from flows.cli.checks import refuse_absent_data, refuse_absent_model, refuse_without_flower
from flows.cli.init import commented
from flows.cli.settings_file import load_hospital
from flows.cli.terminal import Quiet, flow_running, print_place, print_rows
from flows.files import write_text
from tasks.errors import StudyError
from tasks.settings.hospital import HospitalSettings

hospital_commands = typer.Typer(help="Take part in a federation as one hospital.", no_args_is_help=True)
logger = logging.getLogger("fed_rag")
FILE = "hospital.yaml"
HEAD = """\
# Settings of one hospital: fed-rag hospital check {folder}
# Lines that begin with "# " and a name are defaults. Take the "# " away to change one.
# Paths are relative to the folder of this file, which also receives all that the hospital makes (artifacts).
"""
Folder = Annotated[Path, typer.Argument(help=f"The hospital's folder, with its {FILE}.")]


@hospital_commands.command("init")
def hospital_init(
    folder: Annotated[Path, typer.Argument(help="Folder of the hospital; made if it is not there.")],
    name: Annotated[str, typer.Option(help="The hospital's name in the federation.")],
    root: Annotated[Path, typer.Option(help="Folder that holds the hospital's table or DICOM export.")],
    coordinator: Annotated[str, typer.Option(help="Host and port of the coordinator.")] = "localhost:9092",
) -> None:
    """Write the settings file of a hospital: every setting with its default and what it means.

    Put the files that the coordinator handed out, ca.crt and node.key, beside it.

    Example: fed-rag hospital init north --name north --root /data/export --coordinator coordinator.example.org:9092
    """
    from flows.runtimes.flower.keys import refuse_name
    from flows.sum_keys import make_sum_key

    refuse_name(name)
    file = folder / FILE
    if file.exists():
        raise StudyError(f"Expected no settings yet, found {file}: change that file, or name another folder.")
    given = {"name": name, "dataset.name": "table", "dataset.root": str(root.absolute())}
    given["coordinator.address"] = coordinator
    write_text(file, commented(HEAD.format(folder=shlex.quote(str(folder))), given, HospitalSettings))
    make_sum_key(folder / HospitalSettings(name=name).secure_sums.key, name)
    print_place("Settings", file, f": run `fed-rag hospital check {shlex.quote(str(folder))}` next")


@hospital_commands.command("check")
def hospital_check(folder: Folder = Path(), quiet: Quiet = False) -> None:
    """Do everything that needs nobody else, and tell in plain words what would leave. Nothing is sent.

    That is: read the cases, split them so that no test image is a training image, audit this split, compute features,
    build the library, and score what needs no model.

    Example: fed-rag hospital check north
    """
    settings = open_folder(folder)
    with alone_in_folder(settings.name), flow_running(quiet):
        from flows.check_hospital import check_hospital

        found = check_hospital(settings)
    print_rows(found.cases, "Cases")
    print_rows(found.audit, "What test cases share with training")
    print_rows(found.baselines, "Scores without a model, which stay here")
    print_rows(found.told, "What would leave this hospital")
    print_rows(fingerprint_rows(settings), "Keys for secure sums: compare each with its hospital, by telephone")
    print_place("Base", Path(found.base), " (for agreement.base)")


@hospital_commands.command("join")
def hospital_join(folder: Folder = Path(), quiet: Quiet = False) -> None:
    """Join a federation and stay: answer the coordinator's requests, until the process is ended.

    The base is loaded once. If the coordinator cannot be reached, the hospital waits. What it has trained is kept:
    after an interruption, the same command goes on.

    Example: fed-rag hospital join north
    """
    refuse_without_flower()
    settings = open_folder(folder)
    from flows.runtimes.flower.keys import check_certificate, read_node_key

    authority, key = settings.coordinator.authority, read_node_key(settings.coordinator.key)
    soon = check_certificate(authority)
    with alone_in_folder(settings.name), flow_running(quiet):
        from flows.resident import Resident
        from flows.runtimes.flower.node import Node, check_coordinator, stay
        from flows.runtimes.flower.wire import reply_to

        if soon:
            logger.warning(soon)
        address = settings.coordinator.address
        resident, pem = Resident(settings), authority.read_bytes()
        stay(
            lambda: Node(address, pem, key),
            lambda: check_coordinator(address, str(authority)),
            lambda message: reply_to(message, resident.answer),
        )


def fingerprint_rows(settings: HospitalSettings) -> list[dict[str, str]]:
    """The fingerprints of the keys for secure sums, as a table."""
    from flows.sum_keys import fingerprints

    found = fingerprints(settings.name, settings.secure_sums)
    return [{"hospital": name, "fingerprint": each} for name, each in found.items()]


def open_folder(folder: Path) -> HospitalSettings:
    """The settings of a hospital, whose folder becomes the working directory.

    Raises StudyError if there are none, or they name data or a model that is not there.
    """
    from flows.runtimes.flower.keys import refuse_name

    if not (folder / FILE).is_file():
        raise StudyError(f"Expected {FILE} in {folder.absolute()}, found none: run `fed-rag hospital init` first.")
    os.chdir(folder)
    settings = load_hospital(Path(FILE))
    refuse_name(settings.name)
    refuse_absent_data(settings.dataset)
    refuse_absent_model(settings.model)
    return settings


def alone_in_folder(name: str) -> FileLock:
    """A lock that one process of a hospital's folder has at a time. Raises StudyError if another one has it."""
    lock = FileLock(".join.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise StudyError(
            f"Expected no other process of {name} in this folder, found one: it takes part already, or has to be ended."
        ) from None
    return lock
