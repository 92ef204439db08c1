"""A Prefect automation that tells somebody of deployments' runs that failed, crashed, are late or were not promoted.

Where to is in the environment, since an address may hold a password. It is kept in a Prefect block, encrypted, and in
no message, log or artifact. A message names the run, its state and its page in the dashboard, and says nothing of why:
it leaves the house.
"""

import contextlib
from typing import TYPE_CHECKING, Any

from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from flows.promotion import NOT_PROMOTED
from tasks.errors import StudyError

if TYPE_CHECKING:
    from uuid import UUID

OFF = "off"
"""The address that ends notifications."""
NAME = "fed-rag: notifications"
BLOCK = "fed-rag-notifications"
STATES = ("Failed", "Crashed", "TimedOut", "Late", NOT_PROMOTED)
SUBJECT = "fed-rag: {{ flow_run.name }} is {{ flow_run.state.name }}"
BODY = """Run: {{ flow_run.name }}
Deployment: {{ flow.name }}/{{ deployment.name }}
State: {{ flow_run.state.name }}
Why: {{ flow_run | ui_url }}"""


Block = CustomWebhookNotificationBlock | SlackWebhook


def block_for(address: str) -> Block:
    """Prefect's block for an address: a webhook for a web address, Apprise for all else, such as `mailto://`.

    Prefect has no block of its own for mail over SMTP. Its Slack block hands each address that is none of Slack's to
    Apprise. Raises StudyError, without quoting the address, if it is neither.
    """
    if address.startswith(("http://", "https://")):
        message = {"subject": "{{subject}}", "body": "{{body}}", "text": "{{subject}}\n{{body}}"}
        return CustomWebhookNotificationBlock(name=BLOCK, url="{{url}}", json_data=message, secrets={"url": address})
    from apprise import Apprise

    if Apprise.instantiate(address) is None:
        raise StudyError(
            f"Expected FED_RAG_NOTIFY to be the URL of a webhook (https://...), an address as Apprise has them "
            f"(mailto://..., slack://...) or `{OFF}`, found something else: correct it."
        )
    return SlackWebhook(url=address)


def wanted(address: str) -> Block | None:
    """The block for an address; None for `off`. Raises as `block_for` does."""
    return None if address == OFF else block_for(address)


def keep(block: Block | None) -> Any:
    """Save a block under the name that the automation knows, and remove the one with a former address; returns its id.

    None removes what there is, and returns None.
    """
    for kind in (CustomWebhookNotificationBlock, SlackWebhook):
        if not isinstance(block, kind):
            with contextlib.suppress(ValueError):  # there is none
                kind.delete(BLOCK)
    return block.save(BLOCK, overwrite=True) if block else None


def notify_by(block: "UUID") -> AutomationCore:
    """An automation that sends a message by a block.

    It is for runs of deployments: whoever starts a command sees how it ends, and a part of a run ends with the run.
    """
    entered = EventTrigger(
        expect={f"prefect.flow-run.{state}" for state in STATES},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.role": "deployment", "prefect.resource.id": "prefect.deployment.*"},
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
    )
    return AutomationCore(
        name=NAME,
        description="Sends a message where FED_RAG_NOTIFY said when the deployments were made.",
        trigger=entered,
        actions=[SendNotification(block_document_id=block, subject=SUBJECT, body=BODY)],
    )
