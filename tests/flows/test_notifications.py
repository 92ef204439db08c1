"""Somebody is told of runs that went wrong: by a webhook and by mail, once each, and nothing secret on the way."""

import json
import re
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from command import PREFECT, Server, launcher
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook

from flows.automations import NAME as SILENT
from flows.notifications import BLOCK, NAME, block_for, wanted
from flows.operate import NOTIFY, operate
from flows.promotion import NOT_PROMOTED
from tasks.errors import StudyError

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise looks for it
TOP = Path(__file__).parents[2]
SECRET = "s3cret-t0ken"


def test_an_address_gives_the_block_that_sends_there() -> None:
    web = block_for(f"https://hooks.example.com/{SECRET}")
    assert isinstance(web, CustomWebhookNotificationBlock)
    assert web._build_request_args("why", "what")["url"] == f"https://hooks.example.com/{SECRET}"
    mail = block_for(f"mailtos://someone:{SECRET}@mail.example.com")
    assert isinstance(mail, SlackWebhook)
    assert SECRET not in repr(web) + repr(mail)
    assert wanted("off") is None


def test_an_unusable_address_is_refused_and_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in (f"nowhere://{SECRET}", SECRET, "ftp://"):
        with pytest.raises(StudyError, match="Expected FED_RAG_NOTIFY to be the URL of a webhook") as error:
            block_for(address)
        assert address not in str(error.value)
    monkeypatch.setenv(NOTIFY, f"nowhere://{SECRET}")
    with pytest.raises(StudyError, match="Expected FED_RAG_NOTIFY"):
        operate(0)


@contextmanager
def webhook(heard: list[dict[str, str]]) -> Iterator[str]:
    """A web server on loopback that keeps what is posted to it, and where."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append(body | {"path": self.path})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{SECRET}"
        server.shutdown()


@contextmanager
def mailbox(letters: list[str]) -> Iterator[int]:
    """A mail server on loopback that keeps letters (RFC 5321, as far as one client needs it)."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            for line in self.rfile:
                word = line.split()[0].upper() if line.strip() else b""
                self.wfile.write({b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}.get(word, b"250 ok\r\n"))
                if word == b"DATA":
                    letters.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
                    self.wfile.write(b"250 taken\r\n")
                if word == b"QUIT":
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def wait_for(what: Callable[[], Any], seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.3)
    return found


class Deployed:
    """A server with the deployments of prefect.yaml; no worker, so that runs are in the state that they are put in."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        for name in ("flows", "tasks", "data", "prefect.toml", "prefect.yaml"):
            (folder / name).symlink_to(TOP / name)
        command = [str(PREFECT), "work-pool", "create", "local", "--type", "process", "--overwrite"]
        assert launcher().run(command, folder, server.environment).returncode == 0

    def deploy(self, address: str) -> subprocess.CompletedProcess[str]:
        command = [str(PREFECT), "--no-prompt", "deploy", "--all"]
        done = launcher().run(command, self.folder, self.server.environment | {NOTIFY: address})
        assert SECRET not in done.stdout + done.stderr
        return done

    def automations(self) -> set[str]:
        found = [each["name"] for each in self.server.post("automations/filter", {})]
        assert len(set(found)) == len(found)
        return set(found)

    def run_in(self, kind: str, name: str) -> str:
        """The name of a run of the nightly deployment that ends in a state."""
        nightly = self.server.post("deployments/filter", {"flows": {"name": {"any_": ["fed-rag"]}}})[0]
        made = self.server.post(f"deployments/{nightly['id']}/create_flow_run", {})
        secret = {"type": kind, "name": name, "message": "a sentence that stays in the house"}
        self.server.post(f"flow_runs/{made['id']}/set_state", {"state": secret, "force": True})
        return str(made["name"])


@pytest.mark.slow
def test_messages_arrive_and_hold_no_secret(tmp_path: Path, server: Server) -> None:
    deployed = Deployed(tmp_path, server)
    heard: list[dict[str, str]] = []
    with webhook(heard) as address:
        for _ in range(2):
            done = deployed.deploy(address)
            assert done.returncode == 0, done.stdout + done.stderr
            assert {SILENT, NAME} <= deployed.automations()
        bad = [("FAILED", "Failed"), ("CRASHED", "Crashed"), ("SCHEDULED", "Late"), ("COMPLETED", NOT_PROMOTED)]
        flow = server.post("flows/", {"name": "by-hand"})["id"]
        by_hand = server.post("flow_runs/", {"flow_id": flow})
        server.post(f"flow_runs/{by_hand['id']}/set_state", {"state": {"type": "FAILED", "name": "Failed"}})
        fine = deployed.run_in("COMPLETED", "Completed")
        runs = {deployed.run_in(kind, state): state for kind, state in bad}
        wait_for(lambda: len(heard) >= len(runs))
        last = deployed.run_in("FAILED", "Failed")  # after which nothing more of the others can come
        wait_for(lambda: any(last in each["subject"] for each in heard))
    assert {each["subject"] for each in heard} == {
        *(f"fed-rag: {run} is {state}" for run, state in runs.items()),
        f"fed-rag: {last} is Failed",
    }
    assert len(heard) == len(runs) + 1
    assert all(each["path"] == f"/{SECRET}" for each in heard)
    for each in heard:
        assert re.search(r"Deployment: fed-rag/nightly\n.*\nWhy: http://\S+/runs/flow-run/[-0-9a-f]{36}$", each["body"])
        assert each["text"] == f"{each['subject']}\n{each['body']}"
        assert "stays in the house" not in each["body"] and fine not in each["body"]

    letters: list[str] = []
    with mailbox(letters) as port:
        address = f"mailto://rag@127.0.0.1:{port}?from=rag@here.example&to=night@here.example&mode=insecure"
        assert deployed.deploy(address).returncode == 0
        failed = deployed.run_in("FAILED", "Failed")
        wait_for(lambda: any(failed in letter for letter in letters))
    assert "night@here.example" in letters[0]
    blocks = server.post("block_documents/filter", {"include_secrets": True})
    assert [block["name"] for block in blocks].count(BLOCK) == 1 and SECRET not in json.dumps(blocks)
    assert len(heard) == len(runs) + 1

    assert SECRET not in (server.home / "server.log").read_text(encoding="utf-8")
    assert SECRET not in json.dumps(server.post("artifacts/filter", {}) + server.post("logs/filter", {}))
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in server.home.glob("prefect.db*"))

    assert deployed.deploy("off").returncode == 0
    assert NAME not in deployed.automations() and SILENT in deployed.automations()
