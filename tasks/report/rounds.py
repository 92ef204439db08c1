"""Tables of a federation's rounds as text: losses, who was left out, and what averaging LoRA's factors loses."""

from collections.abc import Mapping

from tasks.records.run_document import RunDocument
from tasks.report.quarantine import left_out

LOST = "lost by averaging factors"
"""Heading of the share of a round's update that is lost where A and B are averaged, each by itself."""


def round_rows(results: RunDocument) -> list[tuple[str, ...]]:
    """The rounds of `results.json` as text: headings, then one row for each."""
    rows = [
        (
            str(row["round"]),
            f"{row['train_loss']:.4f}",
            "-" if row["eval_loss"] is None else f"{row['eval_loss']:.4f}",
            left_out(row),
            lost_text(row.get("lost_share", {})),  # runs of earlier versions lack it
        )
        for row in results["rounds"]
    ]
    return [("round", "training loss", "held-out loss", "left out", LOST), *rows]


def lost_text(shares: Mapping[str, float]) -> str:
    """The share that the mean of factors loses, and what the rule in use does where that is another one."""
    others = ", ".join(f"{rule} {share:.2%}" for rule, share in shares.items() if rule != "factors")
    return (f"{shares['factors']:.2%}" if "factors" in shares else "-") + (f" ({others})" if others else "")
