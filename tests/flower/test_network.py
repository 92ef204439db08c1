"""Coordinator and hospitals in one process, over TLS on loopback: messages arrive, strangers do not."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from contextvars import copy_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from flwr.app import Message
from flwr.cli.config_utils import load_and_validate
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.object_ref import load_app

from flows import flower_apps
from flows.flower_apps import introduced
from flows.runtimes.flower import node as nodes
from flows.runtimes.flower import wire
from flows.runtimes.flower.keys import make_keys, read_node_key, read_nodes, read_server
from flows.runtimes.flower.link import GridLink
from flows.runtimes.flower.node import Node, check_coordinator, why
from flows.runtimes.flower.renewal import renew
from flows.runtimes.flower.superlink import Fleet, superlink
from flows.runtimes.flower.wire import packed, unpacked
from tasks.errors import StudyError
from tasks.federate.remote import parcel as parcels
from tasks.federate.remote.parcel import PROTOCOL, Parcel, ask, closing_if_told_to_end, linked


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network") / "keys"
    make_keys(folder, ["north", "south"], ["127.0.0.1"], days=90)
    return folder


@pytest.fixture
def fleet(keys: Path) -> Iterator[Fleet]:
    with superlink("127.0.0.1:0", read_server(keys), read_nodes(keys)) as fleet:
        yield fleet


@pytest.fixture
def link(fleet: Fleet) -> GridLink:
    return GridLink(fleet.grid, fleet.nodes, {"base": "0"}, fleet.grid.session, poll=0.05)


def connect(fleet: Fleet, keys: Path, name: str) -> Node:
    given = keys / "hospitals" / name
    return Node(fleet.address, (given / "ca.crt").read_bytes(), read_node_key(given / "node.key"))


def serve(node: Node, answer: Callable[[Parcel], Parcel], count: int = 1) -> None:
    """Answer so many messages."""
    while count:
        if message := node.receive():
            node.reply(Message(packed(answer(unpacked(message.content))), reply_to=message))
            count -= 1
        else:
            time.sleep(0.05)


def echo(request: Parcel) -> Parcel:
    return Parcel("done", {"heard": dict(request.about)}, {name: data[::-1] for name, data in request.files.items()})


def test_two_hospitals_are_asked_at_once_and_files_arrive_whole(fleet: Fleet, keys: Path, link: GridLink) -> None:
    files = {"adapter_model.safetensors": bytes(range(256)) * 4096, "empty": b""}
    with ThreadPoolExecutor() as pool, connect(fleet, keys, "north") as north, connect(fleet, keys, "south") as south:
        for node in (north, south):
            pool.submit(serve, node, echo)
        asked = [pool.submit(link.ask, name, Parcel("train", {"to": name}, files)) for name in ("north", "south")]
        for name, answer in zip(("north", "south"), asked, strict=True):
            found = answer.result(timeout=60)
            assert (found.kind, found.about) == ("done", {"heard": {"base": "0", "to": name}})
            assert found.files == {each: data[::-1] for each, data in files.items()}


def test_a_request_waits_for_a_hospital_that_is_away(fleet: Fleet, keys: Path, link: GridLink) -> None:
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(link.ask, "north", Parcel("meet"))
        time.sleep(0.3)
        assert not asked.done()
        with connect(fleet, keys, "north") as north:
            serve(north, echo)
            assert asked.result(timeout=60).kind == "done"


def test_a_request_that_a_hospital_did_not_live_to_answer_is_sent_again(
    fleet: Fleet, keys: Path, link: GridLink
) -> None:
    with ThreadPoolExecutor() as pool:
        with connect(fleet, keys, "north") as north:
            asked = pool.submit(link.ask, "north", Parcel("train"))
            while north.receive() is None:
                time.sleep(0.05)
        with connect(fleet, keys, "north") as north:
            serve(north, echo)
            assert asked.result(timeout=60).kind == "done"


def test_who_leaves_in_the_midst_of_a_secure_sum_is_not_waited_for(fleet: Fleet, keys: Path, link: GridLink) -> None:
    """What it had begun is lost with it; the beginning of a sum waits, as all other requests."""
    with pytest.raises(StudyError, match="north left in the midst of the secure sum, which goes on without it"):
        link.ask("north", Parcel("sum"))
    with ThreadPoolExecutor() as pool:
        with connect(fleet, keys, "north") as north:
            asked = pool.submit(link.ask, "north", Parcel("sum"))
            while north.receive() is None:
                time.sleep(0.05)
        with pytest.raises(StudyError, match="north left in the midst"):
            asked.result(timeout=60)
        offered = pool.submit(link.ask, "north", Parcel("offer"))
        with connect(fleet, keys, "north") as north:
            serve(north, echo)
            assert offered.result(timeout=60).kind == "done"


def test_a_refusal_arrives_as_the_sentence_that_was_given(fleet: Fleet, keys: Path, link: GridLink) -> None:
    def refuse(_: Parcel) -> Parcel:
        return Parcel("refused", {"reason": "Expected at most 3 rounds, found 9."})

    with ThreadPoolExecutor() as pool, connect(fleet, keys, "north") as north, linked(link):
        pool.submit(serve, north, refuse)
        with pytest.raises(StudyError, match="north refused: Expected at most 3 rounds, found 9"):
            ask("north", Parcel("train"))
        with pytest.raises(StudyError, match="found west, which has no key"):
            ask("west", Parcel("train"))


@pytest.mark.parametrize("online", [True, False])
def test_waiting_ends_when_the_process_is_told_to_end(online: bool, fleet: Fleet, keys: Path, link: GridLink) -> None:
    with ExitStack() as stack:
        if online:  # it is asked, and does not answer
            stack.enter_context(connect(fleet, keys, "north"))
        pool = stack.enter_context(ThreadPoolExecutor())
        stack.enter_context(linked(link))
        asked = pool.submit(copy_context().run, ask, "north", Parcel("train"))
        with suppress(KeyboardInterrupt), closing_if_told_to_end():
            time.sleep(0.2)
            assert not asked.done()
            raise KeyboardInterrupt
        with pytest.raises(StudyError, match="told to end while it waited"):
            asked.result(timeout=20)


def test_a_late_hospital_is_named_and_a_meeting_may_take_any_time(fleet: Fleet, keys: Path) -> None:
    link = GridLink(fleet.grid, fleet.nodes, {}, fleet.grid.session, within=0.4, poll=0.05)
    with pytest.raises(StudyError, match=r"an answer of south within 0\.4 s .*, found none: it is left out"):
        link.ask("south", Parcel("train"))
    with connect(fleet, keys, "north"), pytest.raises(StudyError, match="an answer of north within"):
        link.ask("north", Parcel("train"))
    with ThreadPoolExecutor() as pool:
        met = pool.submit(link.ask, "south", Parcel("meet"))
        time.sleep(0.8)
        assert not met.done()
        link.close()


def test_an_error_alone_ends_no_waiting(link: GridLink) -> None:
    with linked(link):
        with suppress(StudyError), closing_if_told_to_end():
            raise StudyError("one hospital failed")
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(link.ask, "north", Parcel("train"))
            time.sleep(0.3)
            assert not asked.done()
            link.close()


def test_without_a_link_nobody_is_asked() -> None:
    with pytest.raises(StudyError, match="fed-rag coordinator start"):
        ask("north", Parcel("train"))


def test_a_stranger_is_refused(fleet: Fleet, keys: Path, tmp_path: Path) -> None:
    make_keys(tmp_path / "other", ["north"], ["127.0.0.1"], days=90)
    shutil.copy(keys / "ca.crt", tmp_path / "other/hospitals/north/ca.crt")
    with pytest.raises(grpc.RpcError) as refused, connect(fleet, tmp_path / "other", "north"):
        pass
    with pytest.raises(StudyError, match="knows this hospital's key, found one that does not"):
        why(refused.value)


def test_a_second_process_of_the_same_hospital_waits(fleet: Fleet, keys: Path) -> None:
    with connect(fleet, keys, "north"):
        with pytest.raises(grpc.RpcError) as refused, connect(fleet, keys, "north"):
            pass
        assert "still connected, by another process" in why(refused.value)


def test_a_clock_that_is_wrong_is_told(fleet: Fleet, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    from flwr.client.grpc_rere_client import node_auth_client_interceptor as signing

    right = signing.now
    monkeypatch.setattr(signing, "now", lambda: right() - timedelta(minutes=20))
    with pytest.raises(grpc.RpcError) as refused, connect(fleet, keys, "north"):
        pass
    with pytest.raises(StudyError, match="clock"):
        why(refused.value)


def test_the_coordinators_certificate_is_checked(fleet: Fleet, keys: Path, tmp_path: Path) -> None:
    check_coordinator(fleet.address, str(keys / "ca.crt"))
    make_keys(tmp_path / "other", ["north"], ["127.0.0.1"], days=90)
    with pytest.raises(StudyError, match="found one that is not"):
        check_coordinator(fleet.address, str(tmp_path / "other/ca.crt"))
    port = fleet.address.rpartition(":")[2]
    with pytest.raises(StudyError, match="Hostname mismatch"):
        check_coordinator(f"localhost:{port}", str(keys / "ca.crt"))
    with pytest.raises(OSError, match="refused"):
        check_coordinator("127.0.0.1:1", str(keys / "ca.crt"))


def test_an_expired_certificate_of_the_coordinator_is_told_to_the_hospital_until_it_is_renewed(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    make_keys(folder, ["north"], ["127.0.0.1"], days=0)
    with pytest.raises(StudyError, match=r"expired on .*`fed-rag coordinator renew"):
        read_server(folder)
    expired = tuple((folder / name).read_bytes() for name in ("ca.crt", "server.crt", "server.key"))
    with (
        superlink("127.0.0.1:0", expired, read_nodes(folder)) as fleet,
        pytest.raises(StudyError, match=r"found one that is not \(certificate has expired\)"),
    ):
        check_coordinator(fleet.address, str(folder / "ca.crt"))
    renew(folder, days=9)
    with superlink("127.0.0.1:0", read_server(folder), read_nodes(folder)) as fleet:
        check_coordinator(fleet.address, str(folder / "ca.crt"))
        with connect(fleet, folder, "north"):
            pass


def test_a_coordinator_that_cannot_be_reached_is_told_once_and_waited_for(
    keys: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nodes, "TRY_AGAIN_S", 0.01)
    tried = list[int]()

    def check() -> None:
        tried.append(1)
        if len(tried) == 4:
            raise StudyError("the test is over")
        check_coordinator("127.0.0.1:1", str(keys / "ca.crt"))

    with caplog.at_level(logging.INFO, logger="fed_rag"), pytest.raises(StudyError, match="over"):
        nodes.stay(pytest.fail, check, pytest.fail)
    told = "the coordinator cannot be reached (Connection refused): waiting, and trying again every 0 s"
    assert caplog.messages == [told]


def test_a_port_in_use_is_told(fleet: Fleet, keys: Path) -> None:
    with pytest.raises(StudyError, match=f"free port at {fleet.address}"), superlink(fleet.address, (b"",) * 3, {}):
        pass


def test_a_hospital_comes_back_to_a_coordinator_that_was_restarted(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "TRY_AGAIN_S", 0.2)
    ends = threading.Event()

    def check() -> None:
        if ends.is_set():
            raise StudyError("the test is over")

    def answer(message: Message) -> Message:
        return Message(packed(echo(unpacked(message.content))), reply_to=message)

    with ThreadPoolExecutor() as pool:
        address = "127.0.0.1:0"
        for _ in range(2):
            with superlink(address, read_server(keys), read_nodes(keys)) as fleet:
                if address.endswith(":0"):
                    address = fleet.address
                    staying = pool.submit(nodes.stay, lambda: connect(fleet, keys, "north"), check, answer)
                link = GridLink(fleet.grid, fleet.nodes, {"base": "0"}, fleet.grid.session, poll=0.05)
                assert link.ask("north", Parcel("meet")).kind == "done"
        ends.set()
        with pytest.raises(StudyError, match="over"):
            staying.result(timeout=60)


def test_nodes_are_introduced_by_the_names_that_they_tell(fleet: Fleet, keys: Path) -> None:
    """As a site with a SuperLink of its own does, which knows numbers alone."""

    def name(told: str) -> Callable[[Parcel], Parcel]:
        return lambda _: Parcel("done", {"name": told})

    with ThreadPoolExecutor() as pool, connect(fleet, keys, "north") as north, connect(fleet, keys, "south") as south:
        for node, told in ((north, "n"), (south, "s")):
            pool.submit(serve, node, name(told))
        found = introduced(fleet.grid, 2, {})
        assert found == {"n": fleet.nodes["north"], "s": fleet.nodes["south"]}
        for node in (north, south):
            pool.submit(serve, node, name("n"))
        with pytest.raises(StudyError, match="found two of the name n"):
            introduced(fleet.grid, 2, {})


@pytest.mark.parametrize("setting", ["secure_aggregation", "compare_images"])
def test_a_process_for_each_message_has_no_part_in_what_takes_several(tmp_path: Path, setting: str) -> None:
    (tmp_path / "study.yaml").write_text(f"federation: {{{setting}: true}}", encoding="utf-8")
    context: Any = SimpleNamespace(run_config={"hospitals": 3, "settings": str(tmp_path / "study.yaml")})
    with pytest.raises(StudyError, match=f"{setting}=false with `flwr run`"):
        flower_apps.main(None, context)  # type: ignore[arg-type]


def test_the_apps_are_found_as_flower_finds_them() -> None:
    config, warnings = load_and_validate(Path(__file__).parents[2] / "pyproject.toml", check_module=True)
    assert not [each for each in warnings if "flwr" in each]
    named = config["tool"]["flwr"]["app"]["components"]
    for kind, app in named.items():
        assert isinstance(load_app(app, ValueError), {"serverapp": ServerApp, "clientapp": ClientApp}[kind])


def test_another_protocol_is_refused_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PROTOCOL", PROTOCOL + 1)
    theirs = packed(Parcel("train"))
    monkeypatch.undo()
    with pytest.raises(
        StudyError, match=f"protocol version {PROTOCOL}, found {PROTOCOL + 1}: install the same version"
    ):
        unpacked(theirs)


def test_damaged_files_and_foreign_messages_are_refused() -> None:
    records = packed(Parcel("train", {}, {"a": b"1"}))
    records.config_records["files"]["a"] = b"2"
    with pytest.raises(StudyError, match="damaged on their way"):
        unpacked(records)
    del records["told"]
    with pytest.raises(StudyError, match="found another"):
        unpacked(records)


def test_a_message_over_the_limit_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcels, "MOST_BYTES", 10)
    Parcel("train", {}, {"a": b"0" * 10})
    with pytest.raises(StudyError, match=r"at most 10 bytes .* found 11"):
        Parcel("train", {}, {"a": b"0" * 11})
