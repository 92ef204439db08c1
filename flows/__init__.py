"""Prefect flows, which run the stages in order, and the `fed-rag` command.

Telemetry is off unless the user turns it on. The environment variables below must be set before Prefect, Flower or the
Hugging Face libraries are imported.
"""

import os

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
}
PREFECT = {
    # When all cores are busy, SQLite stays locked for longer than the server waits by default.
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
    # With small batches, a command's temporary server loses task runs that arrive in bursts.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "fed_rag",
    # Commands without a flow, such as `ask`, have no API to log to, and need no warning about it.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # Seconds between a run's heartbeats; a run without them is marked as crashed (flows/automations.py).
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}

for _name, _value in (QUIET | PREFECT).items():
    os.environ.setdefault(_name, _value)
