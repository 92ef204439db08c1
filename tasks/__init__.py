"""The stages of a study: pure modules, and beside them the thin Prefect tasks in each `step.py`."""
