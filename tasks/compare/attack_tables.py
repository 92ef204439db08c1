"""The tables of attacks as text: strategies by attacks, with each row's worst cell."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from tasks.compare.attack_results import FIGURES, AttackResult, Row, worst
from tasks.records.text_table import Table
from tasks.text.wording import counted

HELD = 0.03
"""A strategy that loses at most this share of right answers counts as holding out."""
LOST = 0.2
"""One that loses at least this share counts as broken."""
MEASURES = {"score": "Right answers", "closed": "Closed questions", "open": "Open questions"}


def attack_tables(results: Sequence[AttackResult]) -> list[Table]:
    """For each number of attackers: losses; right answers of all, closed and open questions; backdoors."""
    found = []
    for f, some in groupby(results, lambda each: each.row.byzantine):
        rows = _rows(some)
        found += [_losses(f, rows), *(_scores(f, rows, measure) for measure in MEASURES)]
        found += [_backdoors(f, rows)] if any(each.attack == "backdoor" for each in rows[0]) else []
    return found


def _rows(results: Iterable[AttackResult]) -> list[list[AttackResult]]:
    """The cells of each row, in order."""
    return [list(cells) for _, cells in groupby(results, lambda each: each.row)]


def _losses(f: int, rows: Sequence[Sequence[AttackResult]]) -> Table:
    """How many attacks a row holds out, how many break it, and the worst."""
    body = []
    for cells in rows:
        if most := worst(cells):
            attacked = [each for each in cells if each.attack != "none"]
            falls = [each.figures["fall"].value if "fall" in each.figures else 1.0 for each in attacked]
            held, lost = sum(fall <= HELD for fall in falls), sum(fall >= LOST for fall in falls)
            worst_loss = f"{most.attack} {_cell(most, 'fall')}"
            body.append((_name(cells[0].row), str(held), str(lost), worst_loss, cells[0].row.tuned or "-"))
    headings = ("", f"attacks that cost at most {HELD:.2f}", f"at least {LOST:.2f}", "worst attack", "chosen settings")
    note = "What an attack costs is the share of right answers without it less the share with it, of the same cases."
    return Table(f"What attacks cost, {counted(f, 'attackers')}", headings, tuple(body), note)


def _scores(f: int, rows: Sequence[Sequence[AttackResult]], measure: str) -> Table:
    body = []
    for cells in rows:
        most = worst(cells)
        body.append((_name(cells[0].row), *(_cell(each, measure) for each in cells), most.attack if most else "-"))
    attacks = ["no attack" if each.attack == "none" else each.attack for each in rows[0]]
    reasons = dict.fromkeys(
        text for cells in rows for each in cells for text in (each.row.refused, each.failed) if text
    )
    answers = max(each.n for cells in rows for each in cells)
    note = " ".join([f"{answers} answers of honest hospitals at most, with 95 % intervals.", *reasons])
    return Table(f"{MEASURES[measure]}, {counted(f, 'attackers')}", ("", *attacks, "worst"), tuple(body), note)


def _backdoors(f: int, rows: Sequence[Sequence[AttackResult]]) -> Table:
    """How often the backdoor's answer is given, with and without it."""
    body = []
    for cells in rows:
        by_attack = {each.attack: each for each in cells}
        shown = (by_attack["none"], by_attack["backdoor"])
        body.append((_name(cells[0].row), *(_cell(each, "backdoor") for each in shown)))
    note = f"Share of {FIGURES['backdoor']}."
    return Table(f"Backdoor, {counted(f, 'attackers')}", ("", "no attack", "backdoor"), tuple(body), note)


def _name(row: Row) -> str:
    return f"{row.strategy}, {row.hospitals} hospitals"


def _cell(of: AttackResult, measure: str) -> str:
    if of.row.refused:
        return "refused"
    if of.failed:
        return "failed"
    found = of.figures.get(measure)
    if found is None:
        return "-"
    ends = "" if found.low is None or found.high is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.value:.3f}{ends}"
