"""A hospital's end of the network: this process as one of Flower's SuperNodes.

A SuperNode as Flower starts it installs and runs the code that the coordinator sends, in a new process for each
message. Here nothing runs but what the hospital has installed, and its engine stays loaded.
"""

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Self

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.client.grpc_rere_client.node_auth_client_interceptor import NodeAuthClientInterceptor
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node as NodeId
from flwr.supercore.grpc import create_channel
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, push_objects
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from tasks.errors import StudyError

logger = logging.getLogger("fed_rag")
HEARTBEAT_S = 10.0
"""The coordinator holds a hospital for gone after two of these without a sign of life."""
BEATS_EVERY_S = 4.0
POLL_S = 0.5
CALL_S = 60.0
"""How long a call may take, but for those that carry files."""
TRY_AGAIN_S = 3.0


class Node:
    """A connection to the coordinator, alive as long as the context.

    Args:
        address: the coordinator's host and port.
        authority: the certificate of the coordinator's authority, as PEM.
        key: the hospital's private key.
    """

    def __init__(self, address: str, authority: bytes, key: ec.EllipticCurvePrivateKey) -> None:
        self._channel = create_channel(
            address,
            insecure=False,
            root_certificates=authority,
            interceptors=[
                RuntimeVersionClientInterceptor(component_name="SuperNode"),
                NodeAuthClientInterceptor(key, key.public_key()),
            ],
        )
        self._stub, self._public = FleetStub(self._channel), public_key_to_bytes(key.public_key())
        self._gone = threading.Event()

    def __enter__(self) -> Self:
        try:
            wanted = ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT_S)
            self._node = NodeId(node_id=self._stub.ActivateNode(wanted, timeout=CALL_S).node_id)
        except BaseException:
            self._channel.close()
            raise
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._gone.set()
        self._heart.join()
        with contextlib.suppress(grpc.RpcError):
            self._stub.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id), timeout=CALL_S)
        self._channel.close()

    def receive(self) -> Message | None:
        """The next message; None if there is none yet."""
        response = self._stub.PullMessages(PullMessagesRequest(node=self._node), timeout=CALL_S)
        if not response.messages_list:
            return None
        run = message_from_proto(response.messages_list[0]).metadata.run_id
        tree = response.message_object_trees[0]
        message = pull_and_inflate_object_from_tree(
            tree,
            make_pull_object_fn_protobuf(self._stub.PullObject, self._node, run),
            make_confirm_message_received_fn_protobuf(self._stub.ConfirmMessageReceived, self._node, run),
            return_type=Message,
        )
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def reply(self, message: Message) -> None:
        """Send an answer."""
        run = message.metadata.run_id
        message.metadata.__dict__["_message_id"] = message.object_id
        with no_object_id_recompute():
            head = message_to_proto(remove_content_from_message(message))
            sent = PushMessagesRequest(
                node=self._node,
                messages_list=[head],
                message_object_trees=[get_object_tree(message)],
                clientapp_runtime_list=[0.0],
            )
            wanted = set(self._stub.PushMessages(sent, timeout=CALL_S).objects_to_push)
            push = make_push_object_fn_protobuf(self._stub.PushObject, self._node, run)
            push_objects(get_all_nested_objects(message), push, object_ids_to_push=wanted)

    def _beat(self) -> None:
        """Give signs of life while the process works; a connection that is lost is noticed at the next call."""
        beat = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_S)
        while not self._gone.wait(BEATS_EVERY_S):
            with contextlib.suppress(grpc.RpcError):
                self._stub.SendNodeHeartbeat(beat, timeout=BEATS_EVERY_S)


def stay(connect: Callable[[], Node], check: Callable[[], None], answer: Callable[[Message], Message]) -> None:
    """Answer the coordinator's messages for ever; whenever it cannot be reached, say so, and try again.

    Args:
        connect: makes a connection.
        check: called before each connection; raises StudyError if none can be made as things are.
        answer: makes the answer to a message.

    Raises StudyError if the coordinator does not let this hospital in.
    """
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    waiting = ""
    while True:
        try:
            check()
            with connect() as node:
                waiting = ""
                logger.info("joined: waiting for the coordinator's requests")
                while True:
                    if message := node.receive():
                        node.reply(answer(message))
                    else:
                        time.sleep(POLL_S)
        except (OSError, grpc.RpcError) as error:
            reason = why(error)
            if reason != waiting:
                logger.info("%s: waiting, and trying again every %.0f s", reason, TRY_AGAIN_S)
            waiting = reason
            time.sleep(TRY_AGAIN_S)


def why(error: Exception) -> str:
    """Why a hospital is not connected, as words that end before what is done about it.

    Raises StudyError where waiting does not help.
    """
    if not isinstance(error, grpc.Call):
        return f"the coordinator cannot be reached ({getattr(error, 'strerror', None) or error})"
    details, code = str(error.details()), error.code()
    if "No SuperNode found" in details:
        raise StudyError(
            "Expected a coordinator that knows this hospital's key, found one that does not: send it the public key, "
            "which it puts into its folder nodes."
        )
    if details == "Invalid timestamp":
        raise StudyError("Expected clocks that agree within 5 minutes, found others: set this machine's clock right.")
    if "could not be activated" in details:
        return "this hospital is still connected, by another process or by one that has just ended"
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return "the coordinator was started again"
    if code == grpc.StatusCode.PERMISSION_DENIED:
        return "the coordinator has ended its study"
    return f"the coordinator cannot be reached ({code.name.lower().replace('_', ' ')})"


def check_coordinator(address: str, authority: str) -> None:
    """Raise StudyError if the coordinator's certificate is not to be trusted, OSError if it cannot be reached.

    Args:
        address: host and port.
        authority: the path of the authority's certificate.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, int(port)), timeout=CALL_S) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            pass
    except ssl.SSLCertVerificationError as error:
        raise StudyError(
            f"Expected a valid certificate of the coordinator at {address}, found one that is not "
            f"({error.verify_message}): compare the address and the certificate {authority} with the coordinator's."
        ) from None
    except ssl.SSLError as error:
        raise StudyError(
            f"Expected TLS at {address}, found something else ({error.reason}): correct the coordinator's address."
        ) from None
