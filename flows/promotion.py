"""Which run is served: `artifacts/current`, switched after the gates, and back."""

import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows.changed_answers import ChangedAnswers, changed_answers
from flows.dashboard import Dashboard
from flows.run_diff import difference
from flows.run_list import FinishedRun, find_run
from tasks.errors import StudyError
from tasks.promote.gates import Gate, gates
from tasks.promote.record import Kind, append, read
from tasks.records.comparison import PairedTest
from tasks.records.run_document import RunDocument
from tasks.settings.promotion import PromotionSettings
from tasks.store import ROOT
from tasks.store.runs import open_run

logger = logging.getLogger("fed_rag")
CURRENT = "current"
"""The link to the run that is served."""
NOT_PROMOTED = "Not promoted"
"""Name of the state of a flow run whose model the gates have refused."""


@dataclass(frozen=True)
class Verdict:
    """Whether a run was promoted, and why."""

    run: str
    before: str | None
    """The run that was current; None if there was none."""
    promoted: bool
    gates: list[Gate]
    answers: ChangedAnswers | None
    """What the run answers otherwise than the one that was current; None where either's answers are not here."""

    @property
    def sentence(self) -> str:
        """The verdict, and what changes with it."""
        changes = f" {self.answers.sentence}" if self.answers else ""
        return self._decision + changes

    @property
    def _decision(self) -> str:
        if self.promoted:
            return f"{self.run} is current now" + (f", in place of {self.before}." if self.before else ".")
        closed = "; ".join(f"{gate.name} ({gate.found})" for gate in self.gates if not gate.passed)
        return f"{self.run} is not promoted: {closed}. {self.before or 'No run'} stays current."


def consider(run: Path, settings: PromotionSettings) -> Verdict:
    """Promote a run if it passes all gates; the verdict is recorded either way."""
    found, now = find_run(str(run)), current()
    tests: Sequence[PairedTest] | str = []
    if now:
        compared = difference(now, found)
        tests = compared.tests or compared.untested
    passed = gates(settings, _results(found), _results(now) if now else None, tests)
    verdict = _verdict(found, now, passed)
    told = {"gates": [asdict(gate) for gate in passed]}
    if verdict.promoted:
        _record("promotion", "passed its gates", verdict, **told)
        _point(found)
    else:
        _record("refusal", "did not pass its gates", verdict, **told)
    return verdict


def tell_verdict(verdict: Verdict) -> None:
    """Say whether a run was promoted: at the terminal, and as a table of its gates in the dashboard."""
    log = logger.info if verdict.promoted else logger.warning
    log(verdict.sentence)
    rows = [
        {"gate": gate.name, "passed": "yes" if gate.passed else "NO", "found": gate.found} for gate in verdict.gates
    ]
    Dashboard().table("promotion", rows or [{"gate": "none is set", "passed": "yes", "found": "-"}], verdict.sentence)


def promote(name: str, because: str) -> Verdict:
    """Make a run current whatever the gates say. Raises StudyError if there is no such whole run, or no reason."""
    found, now = find_run(name), current()
    _refuse_no_reason(because)
    open_run(found.folder)
    verdict = _verdict(found, now)
    _record("override", because, verdict)
    _point(found)
    return verdict


def rollback(because: str) -> Verdict:
    """Make the run current that was so before the present one. Raises StudyError if there is none, or no reason."""
    _refuse_no_reason(because)
    now, before = current(), _before()
    if now is None or before is None:
        raise StudyError(
            "Expected an earlier run to go back to, found none in the record: `fed-rag promote` names one."
        )
    found = find_run(before)
    open_run(found.folder)
    verdict = _verdict(found, now)
    _record("rollback", because, verdict)
    _point(found)
    return verdict


def current() -> FinishedRun | None:
    """The run that is served; None if none was promoted."""
    return find_run(CURRENT) if (ROOT / CURRENT).is_symlink() else None


def _verdict(run: FinishedRun, now: FinishedRun | None, passed: Sequence[Gate] = ()) -> Verdict:
    """A run that is promoted unless a gate is closed, and what it changes."""
    answers = changed_answers(now.folder, run.folder) if now else None
    return Verdict(run.name, now.name if now else None, all(gate.passed for gate in passed), list(passed), answers)


def _record(kind: Kind, because: str, verdict: Verdict, **more: Any) -> None:
    """Add a verdict to the record, with how many answers change: the answers themselves stay with the hospitals."""
    answers = verdict.answers.counts if verdict.answers else None
    append(kind, because, run=verdict.run, before=verdict.before, answers=answers, **more)


def _before() -> str | None:
    """The run that was current before the present one: promotions are undone one by one, the last one first."""
    stack = list[str]()
    for entry in read():
        if entry["kind"] == "rollback" and stack:
            stack.pop()
        elif entry["kind"] in ("promotion", "override"):
            stack.append(entry["run"])
    return stack[-2] if len(stack) > 1 else None


def _point(run: FinishedRun) -> None:
    """Switch the link, atomically: a reader finds the old run or the new one."""
    link = ROOT / f".{CURRENT}.{secrets.token_hex(4)}"
    link.symlink_to(run.folder.relative_to(ROOT), target_is_directory=True)
    link.replace(ROOT / CURRENT)


def _results(run: FinishedRun) -> RunDocument:
    document: RunDocument = json.loads((run.folder / "results.json").read_text(encoding="utf-8"))
    return document


def _refuse_no_reason(because: str) -> None:
    if not because.strip():
        raise StudyError("Expected a reason for the record in --because, found none: say why in a sentence.")
