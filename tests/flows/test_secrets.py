"""Secrets stay where they are kept: planted ones are in no artifact, log, parameter, setting, reply or database."""

import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from command import COMMAND, Server, run
from ingest_samples import picture
from serving import question, served
from test_serve_routes import Parrot
from traces import Traces

from flows.cli.settings_file import describe
from flows.serve import asked_log
from flows.serve.app import Limits, make_app
from flows.serve.metrics import Metrics
from flows.serve.tokens import TokenFile, digest_of
from tasks.federate.privacy.secret import LENGTH, NAME
from tasks.settings import Study
from tasks.settings.attack import AttackTable
from tasks.settings.comparison import Comparison
from tasks.settings.hospital import HospitalSettings
from tasks.settings.recipe import Recipe

TOKEN = "zwetschge-knoedel-token-of-a-ward"
NOISE = {f"hospital-{number}": f"zwetschge-knoedel-noise-{number:08}".encode() for number in (1, 2)}
GIVEN = {
    name: f"zwetschge-knoedel-{name.lower()}"
    for name in ("HF_TOKEN", "PREFECT_API_KEY", "AWS_SECRET_ACCESS_KEY", "FED_RAG_ANY_SECRET")
}
"""What a shell of an operator may hold."""
SMALL = {
    "dataset.images": 24,
    "partition.hospitals": 2,
    "federation.rounds": 1,
    "federation.privacy.unit": "example",
    "federation.privacy.sigma": 1,
    "federation.privacy.epsilon": 1000,
    "retrieval.k": 0,
    "evaluation.max_new_tokens": 4,
    "evaluation.reliance": 0,
    "evaluation.examined": 0,
    "evaluation.saliency": 0,
}


@pytest.mark.slow
def test_keys_of_noise_and_the_shells_secrets_are_found_nowhere(
    server: Server, tiny_folder: Path, tmp_path: Path
) -> None:
    """A study with noise and all logs; then everything is searched but the files that the keys are kept in."""
    for hospital, key in NOISE.items():
        assert len(key) == LENGTH
        place = tmp_path / "work/artifacts/hospitals" / hospital
        place.mkdir(parents=True)
        (place / NAME).write_bytes(key)
    settings = SMALL | {"model.name": tiny_folder}
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    more = GIVEN | {"PREFECT_LOGGING_LEVEL": "DEBUG"}
    server.environment.update(more)
    try:
        done = run(server, tmp_path / "work", [str(COMMAND), "run", *words])
    finally:
        for name in more:
            del server.environment[name]
    assert done.returncode == 0, done.stderr
    (tmp_path / "work/printed.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    traces = Traces([*GIVEN.values(), *(key.decode() for key in NOISE.values())], NOISE.values())
    found = traces.found([tmp_path / "work", server.home])
    kept = {str(tmp_path / "work/artifacts/hospitals" / hospital / NAME) for hospital in NOISE}
    assert set(found) == kept  # where they are kept they are found, so that they would be elsewhere


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A service whose token file has one token; it answers without a model."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "tokens.txt"
    file.write_text(f"ward:{digest_of(TOKEN)}\n", encoding="utf-8")
    with served(make_app(Parrot(), TokenFile(file), Limits(wait_ms=0), Metrics())) as one:
        yield one


def test_a_token_is_in_no_reply_log_or_measure(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    signed, wrong = {"Authorization": f"Bearer {TOKEN}"}, {"Authorization": f"Bearer {TOKEN}x"}
    replies = [
        client.post("/v1/ask", **question(picture()), headers=signed),
        client.post("/v1/ask", **question(b"no image"), headers=signed),
        client.post("/v1/ask", **question(picture()), headers=wrong),
        client.get("/v1/explain/0", headers=signed),
        *(client.get(path, headers=signed) for path in ("/metrics", "/openapi.json", "/ready", "/health", "/", "/x")),
    ]
    assert [reply.status_code for reply in replies[:3]] == [200, 400, 401]
    said = "".join(reply.text + str(reply.headers) for reply in replies)
    told = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpcore", "httpx"))]
    out, err = capfd.readouterr()
    assert Traces([TOKEN]).within("\n".join([said, out, err, *told])) == set()


def test_the_hospitals_log_has_the_tokens_name_alone() -> None:
    assert set(asked_log.Entry.__dataclass_fields__) == {
        "when", "who", "id", "question", "answer", "shown", "run", "adapter", "similarities", "confidence", "threshold",
        "state", "key", "content", "erased",  # `key` is a digest of what the asker called the question
    }  # fmt: skip


@pytest.mark.parametrize("model", [Study, Comparison, AttackTable, Recipe, HospitalSettings])
def test_no_setting_takes_a_secret(model: type[Study]) -> None:
    """Settings are written into runs, manifests and the dashboard: they may name the file of a key, and no key."""
    suspicious = ("token", "secret", "password", "key", "credential", "webhook", "url")
    named = {name for name, _, _ in describe(model) if any(word in name.split(".")[-1] for word in suspicious)}
    counts = {name for name in named if name.endswith(("tokens", "tokens_per_pass"))}
    assert named - counts <= {"coordinator.key", "secure_sums.key"}
    for group in ("coordinator", "secure_sums"):
        assert HospitalSettings.model_fields[group].annotation.model_fields["key"].annotation is Path
