"""The command that answers at a hospital, all day."""

import logging
import secrets
import socket
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.checks import refuse_no_run
from flows.cli.results import Personal
from flows.cli.terminal import console, log_to_console
from tasks.errors import StudyError
from tasks.store import ROOT

logger = logging.getLogger("fed_rag")


def serve(
    hospital: Annotated[str, typer.Option(help="Whose library is searched, as hospital-1.", show_default=False)],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of a run; if not given, the promoted one, else the newest.", show_default=False),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            help="File of NAME:SHA256 lines; if not given, one token is made and printed.", show_default=False
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Most questions that are answered together.")] = 32,
    wait_ms: Annotated[float, typer.Option(min=0, help="How long a question waits for others, in ms.")] = 20,
    rate: Annotated[int, typer.Option(min=1, help="Most requests of a token in a minute.")] = 120,
    max_mb: Annotated[int, typer.Option(min=1, help="Largest request, in MB.")] = 32,
    personal: Personal = False,
) -> None:
    """Answer questions about images with a trained model and a hospital's library, over HTTP and on a page.

    The service stays until Ctrl-C. It goes on with a newly promoted run, and with what `fed-rag forget` leaves, by
    itself. docs/serving.md has the routes, tokens, and what is logged.

    Example: fed-rag serve --hospital hospital-1 --port 8080
    """
    refuse_no_run(run or served_run())
    with _listen(host, port) as door:
        log_to_console()
        logger.info("opening the library and the base of %s", hospital)
        import uvicorn

        from flows.serve.app import make_app
        from flows.serve.front import Limits
        from flows.serve.metrics import Metrics
        from flows.serve.service import Service
        from flows.serve.tokens import OneToken, TokenFile

        token = secrets.token_urlsafe(24)
        known = TokenFile(tokens) if tokens else OneToken(token)
        known.known()  # refuses an unusable file before the base is loaded
        metrics = Metrics()
        service = Service(hospital, (lambda: run) if run else served_run, personal, metrics.reloads.inc)
        service.load()
        app = make_app(service, known, Limits(batch, wait_ms, rate, max_mb * 1_000_000), metrics)
        console.print(f"Serving {hospital} at http://{host}:{door.getsockname()[1]}", soft_wrap=True, highlight=False)
        if not tokens:
            console.print(f"Token, which is shown only here: {token}", soft_wrap=True, highlight=False)
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[door])


def served_run() -> Path:
    """The promoted run, or the newest if none is promoted."""
    promoted = ROOT / "current"
    return promoted if promoted.exists() else ROOT / "latest"


def _listen(host: str, port: int) -> socket.socket:
    """A socket at an address. Raises StudyError if it is taken, or not this machine's."""
    door = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
        door.listen(128)
    except OSError as error:
        door.close()
        raise StudyError(
            f"Expected a free port for --port, found {host}:{port} ({error.strerror}): name another."
        ) from None
    return door
