"""What clients of the service get, from a service that answers without a model."""

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest
from dicom_samples import dicom
from ingest_samples import picture
from serving import SIGNED, TOKEN, Parrot, question, served

from flows.serve.app import make_app
from flows.serve.front import Limits
from flows.serve.metrics import Metrics
from flows.serve.tokens import OneToken
from tasks.errors import StudyError


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture
def client(parrot: Parrot) -> Iterator[httpx.Client]:
    with served(make_app(parrot, OneToken(TOKEN), Limits(most_bytes=50_000, wait_ms=0), Metrics())) as one:
        yield one


def problem(reply: httpx.Response, code: int) -> str:
    """The one sentence of a refusal."""
    assert reply.status_code == code, reply.text
    body = reply.json()["error"]
    assert body["code"] == code and "\n" not in body["message"]
    return body["message"]


def test_an_answer_tells_what_is_behind_it(client: httpx.Client, parrot: Parrot) -> None:
    reply = client.post("/v1/ask", **question(picture(), "Is it?")).json()
    (asked,) = parrot.asked
    assert (asked.who, asked.picture.id, asked.picture.data) == ("started", reply["id"], picture())
    assert (reply["answer"], reply["confidence"], reply["abstained"]) == ("Is it?", 0.9, False)
    assert reply["model"] == {"run": "run-1", "adapter": "abc", "version": version("fed-rag")}
    shown = {"similarity": 0.75, "id": "t:1", "question": "Is there a cyst?", "answer": "no", "image": None}
    assert reply["retrieved"] == [shown]
    with_images = client.post("/v1/ask", **question(picture(), images="true")).json()
    head, _, data = with_images["retrieved"][0]["image"].partition(",")
    assert head == "data:image/png;base64"
    assert PIL.Image.open(io.BytesIO(base64.b64decode(data))).size == PIL.Image.open(io.BytesIO(picture())).size


def test_a_withheld_answer_is_not_sent(client: httpx.Client) -> None:
    reply = client.post("/v1/ask", **question(picture(), "SURE?"))
    assert (reply.json()["answer"], reply.json()["abstained"]) == (None, True)
    assert "SURE?" not in reply.text
    assert "SURE?" not in client.post("/v1/chat/completions", json=chat(picture(), "SURE?")).text
    assert "fed_rag_abstentions_total 2.0" in client.get("/metrics").text


def test_a_dicom_file_is_read(client: httpx.Client, parrot: Parrot) -> None:
    assert client.post("/v1/ask", **question(dicom(np.arange(48, dtype=np.uint16).reshape(6, 8)))).status_code == 200
    assert parrot.asked[0].picture.data.startswith(b"\x89PNG")


@pytest.mark.parametrize("path", ["/v1/ask", "/v1/chat/completions", "/v1/explain/1", "/metrics", "/other"])
@pytest.mark.parametrize("header", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", "Bearer a token\xe9"])
def test_nobody_gets_in_without_a_token(client: httpx.Client, path: str, header: str | None) -> None:
    given = {} if header is None else {"Authorization": header.encode("latin-1")}
    with httpx.Client(base_url=client.base_url, headers=given) as stranger:
        for reply in (stranger.get(path), stranger.post(path, content=b"x" * 10_000)):
            assert problem(reply, 401).startswith("Expected the header `Authorization: Bearer TOKEN`")
            assert reply.headers["www-authenticate"] == "Bearer"


def test_what_cannot_be_used_is_told_in_one_sentence(client: httpx.Client, parrot: Parrot) -> None:
    assert "that are no image" in problem(client.post("/v1/ask", **question(b"no image")), 400)
    assert problem(client.post("/v1/ask", **question(picture(), " ")), 400).startswith("Expected a question")
    assert problem(client.post("/v1/ask", data={"question": "?"}), 400).startswith("Expected image as in")
    assert "found" in problem(client.post("/v1/ask", content=b"--", headers={"content-type": "text/plain"}), 400)
    assert problem(client.get("/v1/explain/1", params={"method": "magic"}), 400).startswith("Expected method")
    assert problem(client.get("/nothing"), 404).startswith("Expected a path")
    assert parrot.asked == []


def test_too_large_a_request_is_refused_with_or_without_its_length(client: httpx.Client, parrot: Parrot) -> None:
    large = question(picture() + bytes(60_000))
    assert problem(client.post("/v1/ask", **large), 413).startswith("Expected a request of at most 50,000 bytes")
    built = client.build_request("POST", "/v1/ask", **large)
    pieces = (built.read()[start : start + 1000] for start in range(0, len(built.read()), 1000))
    chunked = client.post("/v1/ask", content=pieces, headers={"content-type": built.headers["content-type"]})
    assert problem(chunked, 413).startswith("Expected a request of at most 50,000 bytes")
    assert parrot.asked == []


def test_a_token_that_asks_too_often_waits() -> None:
    limits = Limits(per_minute=3, wait_ms=0)
    with served(make_app(Parrot(), OneToken(TOKEN), limits, Metrics())) as client:
        replies = [client.get("/metrics") for _ in range(4)]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
        assert problem(replies[-1], 429).startswith("Expected fewer requests a minute")
        assert 15 <= int(replies[-1].headers["retry-after"]) <= 21
        assert client.get("/health").status_code == 200


def test_a_service_that_cannot_answer_says_so(client: httpx.Client, parrot: Parrot) -> None:
    assert client.get("/ready").json() == {"status": "ready", "run": "run-1", "adapter": "abc"}
    parrot.broken = StudyError("Expected a run, found none: run again.")
    for reply in (client.get("/ready"), client.post("/v1/ask", **question(picture()))):
        assert problem(reply, 503) == "Expected a run, found none: run again."
    assert client.get("/health").status_code == 200
    parrot.broken = RuntimeError("of a patient")
    reply = client.post("/v1/ask", **question(picture()))
    assert "of a patient" not in problem(reply, 500)
    parrot.broken = None
    assert client.post("/v1/ask", **question(picture())).status_code == 200


def test_an_explanation_is_a_picture_of_an_own_answer(client: httpx.Client) -> None:
    name = client.post("/v1/ask", **question(picture())).json()["id"]
    reply = client.get(f"/v1/explain/{name}", params={"method": "rollout"})
    assert (reply.headers["content-type"], reply.content) == ("image/png", b"rollout")
    assert problem(client.get("/v1/explain/0"), 404).startswith("Expected the id of a recent answer")


def chat(image: bytes, text: str, **more: Any) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return {
        "model": "any",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}],
    } | more


def test_a_chat_client_gets_the_same_answer_whole_or_streamed(client: httpx.Client) -> None:
    whole = client.post("/v1/chat/completions", json=chat(picture(), "Is there a mass?", temperature=0)).json()
    assert whole["object"] == "chat.completion"
    assert whole["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "Is there a mass?"}, "finish_reason": "stop"}
    ]
    streamed = client.post("/v1/chat/completions", json=chat(picture(), "Is there a mass?", stream=True))
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *events, last, rest = streamed.text.split("\n\n")
    assert (last, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]
    assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == "Is there a mass?"
    assert [chunk["finish_reason"] for chunk in chunks] == [None] * 5 + ["stop"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("Is it?", "found 0"),
        ([{"type": "image_url", "image_url": {"url": "http://127.0.0.1/secret.png"}}], "nothing is fetched"),
        ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,@@"}}], "something else"),
    ],
)
def test_a_chat_without_a_sent_image_is_refused(client: httpx.Client, content: object, found: str) -> None:
    sent = {"messages": [{"role": "user", "content": content}]}
    assert found in problem(client.post("/v1/chat/completions", json=sent), 400)


def test_measures_count_requests_batches_and_the_queue(parrot: Parrot) -> None:
    parrot.go.clear()
    limits = Limits(wait_ms=0, per_minute=100_000)
    with served(make_app(parrot, OneToken(TOKEN), limits, Metrics())) as client:

        def ask() -> threading.Thread:
            thread = threading.Thread(target=lambda: client.post("/v1/ask", **question(picture())))
            thread.start()
            return thread

        threads = [ask()]
        assert parrot.entered.wait(10)
        threads += [ask() for _ in range(3)]
        end = time.monotonic() + 20
        while "fed_rag_queue 3.0" not in client.get("/metrics").text:
            assert time.monotonic() < end
        parrot.go.set()
        for each in threads:
            each.join(20)
        text = client.get("/metrics").text
    for line in (
        'fed_rag_requests_total{path="/v1/ask",status="200"} 4.0',
        'fed_rag_request_seconds_count{path="/v1/ask"} 4.0',
        "fed_rag_batch_size_count 2.0",
        "fed_rag_batch_size_sum 4.0",
        "fed_rag_queue 0.0",
    ):
        assert line in text


def test_the_page_and_the_description_ask_for_nothing_from_elsewhere(client: httpx.Client) -> None:
    with httpx.Client(base_url=client.base_url) as stranger:
        page = stranger.get("/")
        assert "not a medical device" in page.text.lower()
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "://" not in page.text
        assert [stranger.get(path).status_code for path in ("/docs", "/redoc")] == [401, 401]
        described = stranger.get("/openapi.json").json()
    assert {"/v1/ask", "/v1/explain/{answer}", "/v1/chat/completions", "/health", "/ready"} <= set(described["paths"])
    assert described["components"]["schemas"]["AskReply"]["examples"]
    assert "access-control-allow-origin" not in client.get("/health", headers={"Origin": "http://other"}).headers


def test_every_field_of_the_page_has_a_label(client: httpx.Client) -> None:
    import re

    page = client.get("/").text
    fields = set(re.findall(r'<(?:input|select) id="(\w+)"', page))
    assert fields == {"token", "image", "question", "method"}
    assert fields == set(re.findall(r'<label for="(\w+)"', page))
    assert set(re.findall(r'at\("(\w+)"\)', page)) <= set(re.findall(r'id="(\w+)"', page))
    assert SIGNED["Authorization"] not in page


def events(reply: httpx.Response) -> Iterator[tuple[str, Any]]:
    """The server-sent events of a reply, as they come."""
    kind = ""
    for line in reply.iter_lines():
        name, _, rest = line.partition(": ")
        if name == "event":
            kind = rest
        elif name == "data":
            yield kind, json.loads(rest)


def test_words_are_sent_before_the_answer_is_whole(client: httpx.Client, parrot: Parrot) -> None:
    parrot.after_word.clear()
    with client.stream("POST", "/v1/ask", **question(picture(), "Is it?", stream="true")) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        found = events(reply)
        assert next(found) == ("token", {"text": "Is"})
        parrot.after_word.set()
        *words, (kind, last) = found
    assert words == [("token", {"text": " it?"})]
    assert (kind, last["answer"]) == ("answer", "Is it?")
    assert last == client.post("/v1/ask", **question(picture(), "Is it?")).json() | {"id": last["id"]}


def test_a_stream_has_no_word_of_a_withheld_answer(client: httpx.Client) -> None:
    with client.stream("POST", "/v1/ask", **question(picture(), "SURE?", stream="true")) as reply:
        (kind, last), *rest = events(reply)
    assert (kind, last["answer"], last["abstained"], rest) == ("answer", None, True, [])
    with client.stream("POST", "/v1/chat/completions", json=chat(picture(), "SURE?", stream=True)) as reply:
        assert "SURE?" not in reply.read().decode() and "withheld" in reply.text


def test_an_error_in_a_stream_is_its_last_event(client: httpx.Client, parrot: Parrot) -> None:
    parrot.broken = StudyError("Expected a run, found none: run again.")
    with client.stream("POST", "/v1/ask", **question(picture(), stream="true")) as reply:
        assert list(events(reply)) == [
            ("error", {"error": {"code": 503, "message": "Expected a run, found none: run again."}})
        ]


def test_an_unexpected_error_in_a_stream_is_in_the_log_that_the_client_is_sent_to(
    client: httpx.Client, parrot: Parrot, caplog: pytest.LogCaptureFixture
) -> None:
    parrot.broken = RuntimeError("of the service alone")
    with client.stream("POST", "/v1/ask", **question(picture(), stream="true")) as reply:
        said = reply.read().decode()
    assert reply.status_code == 200
    assert "its log has more" in said and "of the service alone" not in said
    assert "of the service alone" in caplog.text


@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_client_that_goes_away_costs_no_more(client: httpx.Client, parrot: Parrot, stream: str) -> None:
    parrot.go.clear()
    sent = question(picture(), stream=stream)
    thread = threading.Thread(target=lambda: client.post("/v1/ask", **question(picture(), "First?")))
    thread.start()
    assert parrot.entered.wait(10)
    with (
        httpx.Client(base_url=client.base_url, headers=SIGNED) as leaving,
        pytest.raises(httpx.ReadTimeout),
        leaving.stream("POST", "/v1/ask", **sent, timeout=0.3) as reply,  # it waits behind the first
    ):
        reply.read()
    time.sleep(3)  # until the service has heard of it
    parrot.go.set()
    thread.join(20)
    client.post("/v1/ask", **question(picture(), "Last?"))
    assert [each.question for each in parrot.asked] == ["First?", "Last?"]


def test_a_client_that_goes_away_in_mid_answer_is_known_to_be_gone(client: httpx.Client, parrot: Parrot) -> None:
    parrot.after_word.clear()
    with client.stream("POST", "/v1/ask", **question(picture(), "Is there a mass?", stream="true")) as reply:
        assert next(events(reply))[0] == "token"
    end = time.monotonic() + 10
    while not parrot.working[0].unwanted:
        assert time.monotonic() < end
        time.sleep(0.01)
    parrot.after_word.set()


def keyed(client: httpx.Client, key: str, text: str = "Is it?") -> httpx.Response:
    return client.post("/v1/ask", **question(picture(), text), headers={"Idempotency-Key": key})


def test_a_key_in_work_is_not_asked_twice_and_stands_for_one_question(client: httpx.Client, parrot: Parrot) -> None:
    parrot.go.clear()
    replies: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: replies.append(keyed(client, "one"))) for _ in range(3)]
    for each in threads:
        each.start()
    assert parrot.entered.wait(10)
    time.sleep(0.3)
    assert problem(keyed(client, "one", "Another?"), 409).startswith("Expected a new Idempotency-Key")
    parrot.go.set()
    for each in threads:
        each.join(20)
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert len(parrot.asked) == 1
    secret = parrot.asked[0]
    assert secret.key and secret.content and "one" not in (secret.key, secret.content)
    assert problem(keyed(client, "x" * 201), 400).startswith("Expected an Idempotency-Key of 1 to 200")


def test_measures_tell_drift_by_means_alone(client: httpx.Client) -> None:
    text = client.get("/metrics").text
    assert 'fed_rag_nearest_similarity{of="asked",part="image"} 0.25' in text
    assert 'fed_rag_nearest_similarity{of="library",part="question"} 1.0' in text
