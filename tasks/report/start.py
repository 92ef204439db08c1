"""What a run's first round started from, in words."""

from tasks.records.run_document import StartOfRun


def start_sentence(start: StartOfRun | None) -> str:
    """A sentence for pages, card and results."""
    if start is None:
        return "Training began with a fresh adapter."
    if start["run"]:
        return (
            f"Training went on from the adapter of run {start['run']} (sha256 {start['adapter']}); no test case was "
            "among those that it had been trained on."
        )
    return (
        f"Training went on from an adapter that was trained elsewhere ({start['folder']}, sha256 {start['adapter']}): "
        "on what, and whether test cases were among it, is not known here."
    )
