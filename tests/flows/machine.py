"""A server, workers and deployments as an operator has them, in a folder that looks like a checkout."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml
from command import PREFECT, Server, hear_ctrl_c, run

TOP = Path(__file__).parents[2]
SMALL = {
    "dataset": {"images": 10},
    "federation": {"rounds": 1},
    "partition": {"hospitals": 2},
    "evaluation": {"reliance": 0, "saliency": 0},
}


class Machine:
    """The deployments of prefect.yaml, of which `nightly` is a small study, and a worker that runs them."""

    def __init__(self, folder: Path, server: Server, model: Path, cron: str | None = None, url: str = "") -> None:
        """With a schedule for `nightly` instead of its own, and the address by which workers reach the server."""
        self.folder, self.server = folder, server
        self.environment = server.environment | ({"PREFECT_API_URL": url} if url else {})
        for name in ("flows", "tasks", "data", "prefect.toml"):
            (folder / name).symlink_to(TOP / name)
        stated = yaml.safe_load((TOP / "prefect.yaml").read_text(encoding="utf-8"))
        nightly = stated["deployments"][0]
        if cron:
            nightly["schedules"][0]["cron"] = cron
        self.study = SMALL | {"model": {"name": str(model)}}
        nightly["parameters"]["study"] = self.study
        (folder / "prefect.yaml").write_text(yaml.safe_dump(stated), encoding="utf-8")
        self.workers: list[subprocess.Popen[bytes]] = []
        try:
            self.server.wait(300)
            self.start_worker()
            wait_for(lambda: self.server.post("work_pools/filter", {}), 120)  # the worker makes its pool
            self.deploy()
        except BaseException:
            self.stop()
            raise

    def deploy(self) -> None:
        done = run(self.server, self.folder, [str(PREFECT), "--no-prompt", "deploy", "--all"])
        assert done.returncode == 0, done.stdout + done.stderr

    def start_worker(self) -> None:
        command = [PREFECT, "worker", "start", "--pool", "local", "--type", "process"]
        with (self.folder / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, preexec_fn=hear_ctrl_c
            )
        self.workers.append(worker)

    def deployment(self) -> dict[str, Any]:
        """That of the nightly study."""
        found: dict[str, Any] = self.server.post("deployments/filter", {"flows": {"name": {"any_": ["fed-rag"]}}})[0]
        return found

    def begin(self, settings: Mapping[str, Any] = {}) -> str:
        """Ask for a run of the nightly study, with some sections of its settings changed; returns its id."""
        parameters = {"parameters": {"study": self.study | dict(settings)}}
        return str(self.server.post(f"deployments/{self.deployment()['id']}/create_flow_run", parameters)["id"])

    def state(self, run: str) -> str:
        """What the dashboard shows of a run; empty if it has none of that id."""
        found = self.server.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return str(found[0]["state_name"]) if found else ""

    def ended(self, run: str, seconds: float = 300) -> str:
        """Wait for the end of a run; returns its state."""
        ends = ("Completed", "Failed", "Crashed", "Cancelled")
        wait_for(lambda: self.state(run) in ends, seconds)
        return self.state(run)

    def runs(self, state: str, flow: str = "fed-rag") -> list[dict[str, Any]]:
        wanted = {"flow_runs": {"state": {"name": {"any_": [state]}}}, "flows": {"name": {"any_": [flow]}}}
        found: list[dict[str, Any]] = self.server.post("flow_runs/filter", wanted)
        return found

    def made(self, stage: str) -> int:
        """How many folders of a stage are finished."""
        return len(list(self.folder.glob(f"artifacts/**/{stage}/[!.]*/manifest.json")))

    def children(self) -> list[psutil.Process]:
        """The processes of the runs that go on."""
        return [each for worker in self.workers for each in psutil.Process(worker.pid).children(recursive=True)]

    def kill(self) -> None:
        """As a power cut does: worker and flow at once, and nobody to tell the server."""
        for worker in self.workers:
            everyone = [*psutil.Process(worker.pid).children(recursive=True), psutil.Process(worker.pid)]
            assert len(everyone) > 1, "no flow runs"
            for process in everyone:
                process.kill()
            worker.wait()
        self.workers.clear()

    def stop_worker(self) -> None:
        """The one that was started last."""
        worker = self.workers.pop()
        worker.send_signal(signal.SIGINT)
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()

    def stop(self) -> None:
        while self.workers:
            self.stop_worker()
        self.server.stop()


def wait_for(what: Callable[[], Any], seconds: float) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.5)
    return found
