"""Datasets from a hub: a small one of this test, on loopback, that speaks the hub's protocol."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ingest_samples import picture, write_parquet

REPOSITORY = "flaviagiammarino/vqa-rad"
COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
PROGRAM = """
import sys
from tasks.ingest.step import ingest
from tasks.settings import DatasetSettings
from tasks.errors import StudyError

try:
    print(ingest.fn(settings=DatasetSettings(name=sys.argv[1]), content="", seed=0).path)
except StudyError as error:
    sys.exit(str(error))
"""


class Hub(BaseHTTPRequestHandler):
    """What `snapshot_download` asks for: the commit of a branch, the files of a commit, and their bytes."""

    files: dict[str, bytes]
    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        path = self.path.partition("?")[0]
        listed = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in self.files.items()
        ]
        if path == f"/api/datasets/{REPOSITORY}/revision/main":
            siblings = [{"rfilename": name} for name in self.files]
            self.reply(json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode())
        elif path == f"/api/datasets/{REPOSITORY}/tree/{COMMIT}":
            self.reply(json.dumps(listed).encode())
        elif path.startswith(start := f"/datasets/{REPOSITORY}/resolve/{COMMIT}/"):
            self.reply(self.files[path.removeprefix(start)])
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    rows = [(picture(number), f"{number}?", "yes") for number in range(5)]
    for split in ("train", "test"):
        write_parquet(tmp_path / "hub" / f"{split}.parquet", rows if split == "train" else rows[:1])
    Hub.files = {
        f"data/{split}-00000-of-00001-0a1b2c3d.parquet": (tmp_path / "hub" / f"{split}.parquet").read_bytes()
        for split in ("train", "test")
    } | {"README.md": b"not asked for"}
    Hub.requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def load(name: str, endpoint: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Ingest a dataset without a root, in a process that has that hub and no other."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(folder / "hub-cache"),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-c", PROGRAM, name]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_a_dataset_comes_from_the_hub_with_its_commit(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{hub.server_address[1]}"
    done = load("vqa-rad", endpoint, tmp_path / "work")
    assert done.returncode == 0, done.stderr + str(Hub.requests)
    manifest = json.loads((tmp_path / "work/artifacts" / done.stdout.strip() / "manifest.json").read_text())
    assert manifest["summary"]["revisions"] == {"vqa-rad": COMMIT}
    assert manifest["summary"]["split"] == {"test": 1, "train": 5}
    assert not any("README" in path for path in Hub.requests)
    hub.shutdown()
    hub.server_close()
    again = load("vqa-rad", endpoint, tmp_path / "work")  # from what was downloaded
    assert again.stdout == done.stdout, again.stderr


@pytest.mark.parametrize("name", ["path-vqa", "rocov2"])
def test_without_the_dataset_there_the_error_names_files_and_place(
    hub: ThreadingHTTPServer, tmp_path: Path, name: str
) -> None:
    endpoint = f"http://127.0.0.1:{hub.server_address[1]}"  # has another dataset
    if name == "rocov2":
        endpoint = "http://127.0.0.1:9"  # nobody answers
    done = load(name, endpoint, tmp_path / "work")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(f"dataset.root: expected the {name} dataset, or ")
    assert "set dataset.root to a folder that holds" in done.stderr
    assert "data/{train,validation,test}-*.parquet" in done.stderr
    assert not list((tmp_path / "work").glob("artifacts/source/ingest/*"))
