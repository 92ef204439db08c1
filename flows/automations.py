"""Prefect automations, installed with the deployments: runs whose process died are marked, and somebody is told."""

import os
from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from flows.notifications import NAME as NOTIFICATIONS
from flows.notifications import keep, notify_by, wanted
from flows.operate import NOTIFY

NAME = "fed-rag: runs whose process is gone"
SILENT_FOR = timedelta(seconds=90)
"""Three heartbeats (`heartbeat_frequency` in prefect.toml, the same in prefect.yaml)."""
ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


def mark_silent_runs() -> AutomationCore:
    """An automation that marks flow runs as crashed once they send neither a heartbeat nor a final state.

    If a machine goes down with its worker, nothing else informs the server. The run would be shown as running forever,
    and block its deployment's next run. After Prefect's documentation on zombie flow runs.
    """
    beat = "prefect.flow-run.heartbeat"
    silence = EventTrigger(
        after={beat},
        expect={beat, *(f"prefect.flow-run.{state}" for state in ENDS)},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=SILENT_FOR,
    )
    message = f"Its process is gone: no heartbeat for {SILENT_FOR.seconds} s. Retry goes on from what is finished."
    return AutomationCore(
        name=NAME,
        description="Marks them as crashed, so that they can be retried and the next run starts.",
        trigger=silence,
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    )


def install() -> None:
    """Install the automations, or update those of their names: a step of `prefect deploy`, listed in prefect.yaml.

    Notifications stay as they are without `FED_RAG_NOTIFY` in the environment. Raises StudyError for an address that
    cannot be used.
    """
    address = os.environ.get(NOTIFY)
    block = wanted(address) if address else None
    with get_client(sync_client=True) as client:
        _put(client, mark_silent_runs())
        if block:
            _put(client, notify_by(keep(block)))
        elif address:
            for each in client.read_automations_by_name(NOTIFICATIONS):
                client.delete_automation(each.id)
            keep(None)


def _put(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    """Install an automation, or update the one with its name if it is another.

    An update replaces it in the server, which may be in the midst of an event for it (Prefect 3.9: "Trigger._automation
    has been garbage collected").
    """
    installed = client.read_automations_by_name(wanted.name)
    if not installed:
        client.create_automation(wanted)
    elif AutomationCore.model_validate(installed[0].model_dump(include=set(AutomationCore.model_fields))) != wanted:
        client.update_automation(installed[0].id, wanted)
