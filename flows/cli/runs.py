"""Commands about finished runs: a list of them, two side by side, and the removal of old ones."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from flows.cli.terminal import AsJson, console, print_rows
from tasks.text.wording import counted


def runs(as_json: AsJson = False) -> None:
    """List the finished runs: when, what was set otherwise, scores with 95 % intervals, and size.

    All of it is read from the runs' own folders. Scores are those of the trained model on all test cases. A run's size
    is that of all folders it was made from, which other runs may share.
    """
    from flows.disk import bytes_in, size
    from flows.prune import in_use
    from flows.run_list import MEASURES, read_runs, size_of
    from tasks.store import ROOT

    found, used = read_runs(), in_use()
    if as_json:
        rows: list[dict[str, Any]] = [
            {
                "run": run.name,
                "when": run.when.isoformat(),
                "configuration": run.configuration,
                "changed": run.changed,
                "scores": list(run.scores),
                "seconds": round(run.seconds, 1),
                "bytes": size_of(run.folders),
                "used_by": used.get(run.name),
            }
            for run in found
        ]
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    if not found:
        console.print("There is no finished run here: `fed-rag run` makes the first.")
        return
    table = Table(show_lines=True, padding=(0, 0))
    table.add_column("run, and what was set otherwise", min_width=len(found[0].name), overflow="fold")
    for heading in ("when (UTC)", *MEASURES.values(), "state", "size"):
        table.add_column(heading)
    for run in found:
        changed = "".join(f"\n[dim]{escape(name)}={escape(_short(value))}[/dim]" for name, value in run.changed.items())
        scores = (_score(run.scores, name).replace(" ", "\n", 1) for name in MEASURES)
        state = used.get(run.name, "finished")
        table.add_row(run.name + changed, f"{run.when:%Y-%m-%d\n%H:%M}", *scores, state, size(size_of(run.folders)))
    console.print(table)
    console.print(f"[dim]{counted(len(found), 'runs')}; the artifacts hold {size(bytes_in(ROOT))} in all[/dim]")


def diff(
    one: Annotated[str, typer.Argument(metavar="A", help="A run's name or folder, or `latest`.", show_default=False)],
    other: Annotated[str, typer.Argument(metavar="B", help="Another one.", show_default=False)],
    cases: Annotated[bool, typer.Option("--cases", help="Show each test case with another answer.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set two runs side by side: the settings that differ, the scores, tests of their difference, changed answers.

    Tests are paired: they need the answers of both runs to the same test cases, in these artifacts. Differences are B
    less A, with 95 % intervals over images; training's own chance is not in them, since each run was trained once.
    With --cases, questions and answers of hospitals are shown.

    Example: fed-rag diff 20261128-020000-1a2b3c4d latest
    """
    from flows.changed_answers import changed_answers, rows_of
    from flows.run_diff import difference
    from flows.run_list import find_run

    a, b = find_run(one), find_run(other)
    found, answers = difference(a, b), changed_answers(a.folder, b.folder)
    if as_json:
        document: dict[str, Any] = {"a": a.name, "b": b.name, "settings": found.settings, "tests": found.tests}
        document |= {"untested": found.untested or None, "answers": answers.counts if answers else None}
        if cases:
            document["changed"] = [asdict(each) for each in answers.changed] if answers else []
        typer.echo(json.dumps(document, indent=1, ensure_ascii=False))
        return
    rows = [
        {"setting": name, "A": _short(values[0]), "B": _short(values[1])} for name, values in found.settings.items()
    ]
    print_rows(rows, f"Settings that differ between A {a.name} and B {b.name}")
    if not rows:
        console.print("All settings are the same.")
    tests = {test["measure"]: test for test in found.tests}
    print_rows(
        [
            {"score": each["measure"].replace("_", " "), "A": _score(a.scores, each["measure"])}
            | {"B": _score(b.scores, each["measure"]), "B - A": _tested(tests.get(each["measure"]))}
            for each in a.scores
        ],
        "Scores of all test cases",
    )
    if found.untested:
        console.print(f"[dim]not tested: {escape(found.untested)}[/dim]")
    if answers:
        print_rows(rows_of(answers.changed) if cases else [], "Answers that changed from A to B, losses first")
        more = "" if cases or not answers.changed else " --cases shows them."
        console.print(answers.sentence + more, soft_wrap=True)


def prune(
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest runs stay.")] = 14,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and change nothing.")] = False,
) -> None:
    """Remove old runs, and the folders of finished stages that no run needs any more.

    The newest runs stay, and those in use: the ones that `latest` or `current` lead to, and those that a comparison was
    made from. Lists of withdrawn patients stay. Folders that are less than a day old stay too, since a failed run that
    is retried goes on from them; and while a study is running here, no stage's folder is removed.
    """
    from flows.disk import size
    from flows.prune import prune as flow

    done = flow(keep, dry_run)
    print_rows([{"run": name} for name in done.runs], "To be removed" if dry_run else "Removed")
    print_rows([{"run": name, "used by": why} for name, why in done.kept.items()], "Old, but in use: kept")
    if done.running:
        console.print(f"{counted(done.running, 'studies')} running: no stage's folder is removed until then.")
    verb = "Would free" if dry_run else "Freed"
    what = f"{counted(len(done.runs), 'runs')}, {counted(len(done.folders), 'folders')} of stages"
    console.print(f"{verb} {size(done.bytes)}: {what}.")
    if dry_run:
        console.print("Nothing was changed: this was a dry run.")


def _score(scores: Any, measure: str) -> str:
    entry = next((each for each in scores if each["measure"] == measure), None)
    if entry is None:
        return "-"
    return f"{entry['score']:.3f}" + (
        "" if entry["interval"] is None else " [{:.2f}, {:.2f}]".format(*entry["interval"])
    )


def _tested(test: Any) -> str:
    if test is None:
        return "-"
    interval = "" if test["interval"] is None else " [{:+.3f}, {:+.3f}]".format(*test["interval"])
    return f"{test['difference']:+.3f}{interval}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
