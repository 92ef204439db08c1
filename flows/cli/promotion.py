"""Commands about the run that is served: promote one, go back, and read the record."""

from collections.abc import Mapping
from typing import Annotated

import typer
from rich.markup import escape

from flows.cli.terminal import console, print_rows

Because = Annotated[str, typer.Option(help="The reason, which the record keeps.", show_default=False)]


def promote(
    run: Annotated[str, typer.Argument(help="A run's name or folder, or `latest`.", show_default=False)],
    because: Because,
) -> None:
    """Serve a run from now on, whatever the gates of `promotion` say; the record keeps who did it, and why.

    `artifacts/current` is a link to the run that is served, and is switched at once.

    Example: fed-rag promote latest --because "the gate on calibration is too strict for this scanner"
    """
    from flows.promotion import promote as switch

    console.print(escape(switch(run, because).sentence), soft_wrap=True)


def rollback(because: Because) -> None:
    """Serve the run again that was current before the present one; the record keeps who did it, and why."""
    from flows.promotion import rollback as switch

    console.print(escape(switch(because).sentence), soft_wrap=True)


def promotions() -> None:
    """Show the record of promotions, refusals, rollbacks and erasures: when, who, which run, and why.

    `answers` counts the test cases that the run answers rightly and the one before it did not (+), and the reverse (-);
    `fed-rag diff A B --cases` shows them case by case.

    The record is `artifacts/promotions.jsonl`. Lines are only ever added, and each holds the digest of the one before:
    a changed or removed line is refused with a sentence.
    """
    from tasks.promote.record import read

    rows = [
        {
            "when (UTC)": entry["at"].replace("T", " ").rstrip("Z"),
            "what": entry["kind"],
            "run": entry.get("run", "-"),
            "answers": _changes(entry.get("answers")),
            "by": entry["by"],
            "because": entry["because"]
            + "".join(f"; {gate['name']} {gate['found']}" for gate in entry.get("gates", ()) if not gate["passed"]),
        }
        for entry in read()
    ]
    print_rows(rows, "Promotions")
    if not rows:
        console.print("Nothing was promoted here yet: set promotion.enabled=true, or use `fed-rag promote`.")


def _changes(counts: Mapping[str, int] | None) -> str:
    return f"+{counts['became right']} -{counts['became wrong']}" if counts else "-"
