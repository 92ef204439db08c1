"""What runs, in which order: Prefect flows, and the `fed-rag` command.

Nothing that this project starts reports to anyone unless its user says so: set before Prefect, Flower or the
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
    # Where all cores are busy, SQLite is locked for longer than a server waits.
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
    # A command's own server loses bursts of task runs in small batches.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "fed_rag",
    # Commands that run no flow, as `ask`, have nobody to send their lines to, and need no warning of it.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # A run says every so many seconds that it lives; one that falls silent is marked as crashed (flows/automations.py).
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}

for _name, _value in (QUIET | PREFECT).items():
    os.environ.setdefault(_name, _value)
