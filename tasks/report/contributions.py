"""What each hospital brought to a round, as text."""

from tasks.records.contributions import ContributionsDocument


def contribution_rows(found: ContributionsDocument) -> list[tuple[str, ...]]:
    """One row a hospital, headings first: gains are of held-out loss per answer token."""
    whole = found["loss_before"] - found["loss_after"]
    head = ("hospital", "training cases", "brought", "standard error", "of the whole", "missed without it", "alone")
    rows = [
        (
            row["hospital"],
            f"{row['samples']:,}",
            f"{row['shapley']:+.4f}",
            "exact" if row["standard_error"] is None else f"{row['standard_error']:.4f}",
            f"{row['shapley'] / whole:.0%}" if whole > 0 else "",
            f"{row['leave_one_out']:+.4f}",
            f"{row['alone']:+.4f}",
        )
        for row in found["hospitals"]
    ]
    nothing = [(name, "", "+0.0000", "", "", "", "") for name in found["left_out"]]
    return [head, *rows, *nothing]


def contribution_sentence(found: ContributionsDocument) -> str:
    """What the rows are of."""
    how = "all orders" if found["exact"] else f"{found['orders']:,} orders drawn at random"
    return (
        f"Round {found['round']} took the held-out loss of all hospitals from {found['loss_before']:.4f} to "
        f"{found['loss_after']:.4f} per answer token. Brought: the Shapley value by {how} in which hospitals can join. "
        "These add up to the whole; one below zero made the loss larger."
    )
