"""The coordinator's end of the network: the Fleet API of Flower's SuperLink, in this process and on one address alone.

A SuperLink as Flower starts it listens on two more ports: its Control API lets whoever reaches it run code at every
hospital, and its ServerAppIo API is plain text. Neither is here. The state is in memory: what lasts is in the store,
and a hospital whose coordinator was restarted joins again by itself.
"""

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID, SubStatus
from flwr.proto.fleet_pb2_grpc import add_FleetServicer_to_server
from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer
from flwr.server.superlink.fleet.grpc_rere.node_auth_server_interceptor import NodeAuthServerInterceptor
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.serverapp import Grid
from flwr.supercore.address import is_port_in_use
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION, TaskType
from flwr.supercore.grpc import generic_create_grpc_server
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError, pull_and_inflate_object_from_tree
from flwr.supercore.interceptors import create_fleet_runtime_version_server_interceptor
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.run import Run
from flwr.superlink.federation import NoOpFederationManager

from tasks.errors import StudyError

WORKERS = 64
"""Calls of hospitals that are served at once."""
POLL_S = 0.2
ARRIVES_WITHIN_S = 600
"""How long the files of an answer may take after its head has arrived."""


class FleetGrid(Grid):
    """Flower's grid of one run, on the state of the Fleet API of this process."""

    def __init__(self, states: LinkStateFactory, objects: ObjectStoreFactory, run: Run) -> None:
        self._state, self._objects, self._run = states.state(), objects.store(), run

    def set_run(self, run: Run) -> None:
        """Refused: a grid of this process has one run."""
        raise NotImplementedError

    def create_message(self, *_: object, **__: object) -> Message:
        """Refused: deprecated by Flower."""
        raise NotImplementedError

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are connected."""
        return self._state.get_nodes(self._run.run_id)

    def session(self, node: int) -> str:
        """When a node connected last: what it was sent in an earlier session is lost."""
        (info,) = self._state.get_node_info(node_ids=[node])
        return str(info.last_activated_at)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Lay messages ready for their nodes; returns their ids. Raises StudyError for a node that is not connected."""
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        message.metadata.__dict__["_run_id"] = self._run.run_id
        message.metadata.__dict__["_src_node_id"] = SUPERLINK_NODE_ID
        message.metadata.__dict__["_message_id"] = message.object_id
        with no_object_id_recompute():
            wanted = self._objects.preregister(self._run.run_id, get_object_tree(message))
            nested = get_all_nested_objects(message)
            for name in wanted:
                self._objects.put(name, nested[name].deflate())
        if self._state.store_message_ins(remove_content_from_message(message)) is None:
            raise StudyError("Expected a hospital that is connected, found none: it may come back.")
        return message.metadata.message_id

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The answers that have arrived, each once; a message that a node did not live to answer has an error."""
        found = self._state.get_message_res(set(message_ids))
        self._state.delete_messages({message.metadata.reply_to_message_id for message in found})
        return [self._whole(message) for message in found]

    def _whole(self, head: Message) -> Message:
        if head.metadata.src_node_id == SUPERLINK_NODE_ID or head.has_error():
            return head
        tree = self._objects.get_object_tree(head.metadata.message_id)
        return pull_and_inflate_object_from_tree(
            tree, self._content, self._objects.delete, return_type=Message, max_time=ARRIVES_WITHIN_S
        )

    def _content(self, name: str) -> bytes:
        content = self._objects.get(name)
        if not content:
            raise ObjectUnavailableError(name)
        return content

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages and wait for the answers, at most `timeout` seconds."""
        waiting, found = set(self.push_messages(messages)), list[Message]()
        ends = None if timeout is None else time.monotonic() + timeout
        while waiting and (ends is None or time.monotonic() < ends):
            arrived = self.pull_messages(waiting)
            found += arrived
            waiting -= {message.metadata.reply_to_message_id for message in arrived}
            time.sleep(POLL_S if waiting else 0)
        return found


@dataclass(frozen=True)
class Fleet:
    """The hospitals that may connect, and the grid by which they are reached."""

    grid: FleetGrid
    nodes: Mapping[str, int]
    """The number of each hospital's node, by the hospital's name."""
    address: str
    """Where the Fleet API listens, with the port."""


@contextlib.contextmanager
def superlink(
    address: str, certificates: tuple[bytes, bytes, bytes], keys: Mapping[str, ec.EllipticCurvePublicKey]
) -> Iterator[Fleet]:
    """Listen for hospitals at an address, until the context ends.

    Args:
        address: host and port; port 0 takes a free one.
        certificates: authority, certificate and key, as PEM.
        keys: the public key of each hospital that may connect, by name.

    Raises StudyError if the port is in use.
    """
    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # it logs each call
    if is_port_in_use(address):
        raise StudyError(
            f"Expected a free port at {address}, found it in use: stop what listens there, or name another."
        )
    objects = ObjectStoreFactory()
    states = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), objects)
    state = states.state()
    nodes = {name: state.create_node(NOOP_FLWR_AID, name, public_key_to_bytes(key), 0) for name, key in keys.items()}
    server = generic_create_grpc_server(
        (FleetServicer(states, objects, enable_supernode_auth=True), add_FleetServicer_to_server),
        address,
        max_concurrent_workers=WORKERS,
        certificates=certificates,
        interceptors=[NodeAuthServerInterceptor(states), create_fleet_runtime_version_server_interceptor()],
    )
    with _running(states) as run:
        server.start()
        try:
            yield Fleet(FleetGrid(states, objects, run), nodes, server.bound_address)
        finally:
            server.stop(grace=1).wait()


@contextlib.contextmanager
def _running(states: LinkStateFactory) -> Iterator[Run]:
    """A run of Flower's, which messages belong to, kept alive by heartbeats."""
    state = states.state()
    number = state.create_run(None, None, None, {}, NOOP_FEDERATION, None, NOOP_FLWR_AID, TaskType.SERVER_APP)
    (run,) = state.get_run_info(run_ids=[number])
    task = run.primary_task_id
    assert task is not None
    state.claim_task(task)
    state.activate_task(task)
    heart = HeartbeatSender(lambda: state.acknowledge_task_heartbeat(task))
    heart.start()
    try:
        yield run
    finally:
        heart.stop()
        state.finish_task(task, SubStatus.COMPLETED, "")
