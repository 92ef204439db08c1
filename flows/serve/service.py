"""The resident service of one hospital: opened again whenever the model or the hospital's folders change."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.serve.answered import Answered
from flows.serve.answerer import answer_all
from flows.serve.asked import Asked, ChangedError, Given, Model, entry_of, pictures_of, repeated
from flows.serve.asked_log import alone_at, append
from flows.serve.desk import Desk, open_desk
from flows.serve.drift import Drift
from flows.serve.explainer import Wanted, draw, explain_question
from flows.serve.place import open_place
from flows.serve.telling import MovedError, Telling
from tasks.cases.withdrawn import FORGOTTEN, forgotten_at, is_forgotten
from tasks.engine.shared import shared_engine
from tasks.errors import StudyError
from tasks.store import ROOT, find
from tasks.store.runs import paths_of

KEPT_BYTES = 256_000_000
"""Bound of each cache: features, images, keys and values of what was asked before."""
RECENT = 64
"""How many answers can still be explained."""
TRIES = 5
"""How often questions are answered anew because the hospital's folders changed meanwhile."""


@dataclass(frozen=True)
class _Opened:
    desk: Desk
    model: Model
    run: Path
    drift: Drift
    state: tuple[str, ...]
    """Digests of the folders that are in memory, and of the list of withdrawals."""


class Service:
    """Answers and explains with one hospital's library.

    Args:
        hospital: whose.
        follow: gives the folder of the run to answer with; asked before each batch.
        personal: with the hospital's personal adapter.
        opened: called after each opening.

    All methods may be called by any thread.
    """

    def __init__(
        self,
        hospital: str,
        follow: Callable[[], Path],
        personal: bool = False,
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        self._hospital, self._follow, self._personal, self._on_opened = hospital, follow, personal, opened
        self._lock = threading.RLock()
        self._opened: _Opened | None = None
        self._recent: OrderedDict[str, tuple[Asked, _Opened]] = OrderedDict()
        self._answered = Answered(hospital)

    def load(self) -> None:
        """Load library and base before the first question. Raises StudyError as `open_place` does."""
        desk = self._current().desk
        with shared_engine(desk.place.model, desk.place.study.lora):
            pass

    def model(self) -> Model:
        """What would answer now. Raises StudyError as `open_place` does."""
        return self._current().model

    def nearness(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Mean similarity to the library's nearest, of images and of questions: of what was asked, and of its own.

        NaN where it is not known.
        """
        opened = self._opened
        if opened is None or opened.desk.yardstick is None:
            return (float("nan"),) * 2, (float("nan"),) * 2
        return opened.drift.asked, opened.desk.yardstick.own.means

    def answer(self, asked: Sequence[Asked]) -> list[Given | Exception]:
        """Answer questions together, and log them; an exception in the place of an answer is that question's own.

        A change of the run counts from the next call on. A change of the hospital's folders counts at once: nothing is
        given that was made with a library that is not the hospital's any more, so a forgotten patient is not shown.
        Raises StudyError as `open_place` does, or if the folders keep changing.
        """
        given: dict[str, Given | Exception] = {}
        for _ in range(TRIES):
            opened = self._current()
            with alone_at(self._hospital):
                given |= self._again(opened, [each for each in asked if each.picture.id not in given])
            left = [each for each in asked if each.picture.id not in given]
            if not left or self._answer_new(opened, left, given):
                return [given[each.picture.id] for each in asked]
        raise StudyError(f"Expected the folders of {self._hospital} to rest, found them changing: ask again.")

    def _answer_new(self, opened: _Opened, asked: Sequence[Asked], given: dict[str, Given | Exception]) -> bool:
        """Add answers that are logged; False if the hospital's folders changed meanwhile, so that some are missing."""
        telling = Telling(self._hospital, opened.desk, opened.model, lambda: self._rests(opened), asked)
        followed = any(each.stream or each.given_up for each in asked)
        questions = [(each.picture, each.question) for each in asked]
        try:
            replies = answer_all(opened.desk, questions, telling.watch if followed else None)
        except MovedError:
            given |= telling.broken_off()
            return False
        made = {
            each.picture.id: Given(
                reply, opened.model, pictures_of(opened.desk, reply) if each.pictures else {}, each.picture.id
            )
            for each, reply in zip(asked, replies, strict=True)
        }
        with alone_at(self._hospital):
            fresh = self._rests(opened)
            if fresh:
                given |= made | self._again(opened, asked)  # another process of this hospital may have been first
                new = [each for each in asked if given[each.picture.id] is made[each.picture.id] and not each.unwanted]
                append(self._hospital, [entry_of(each, made[each.picture.id]) for each in new])
        if fresh:
            self._remember(asked, opened)
            opened.drift.add([one.nearness for one in replies if one.nearness])
        else:
            given |= telling.broken_off()
        return fresh

    def _again(self, opened: _Opened, asked: Sequence[Asked]) -> dict[str, Given | Exception]:
        """What was answered before to questions with these keys, by the questions' ids. The caller holds `alone_at`."""
        found = self._answered.find(each.key for each in asked if each.key)
        return {each.picture.id: repeated(opened.desk, each, found[each.key]) for each in asked if each.key in found}

    def _rests(self, opened: _Opened) -> bool:
        """Whether the hospital's folders are still those in memory. The caller holds `alone_at`."""
        return _state(self._hospital, opened.desk) == opened.state

    def explain(self, who: str, answer: str, method: str) -> bytes:
        """The overlay, a PNG, of a recent answer to the same asker by one method.

        Raises ChangedError if the answer is unknown or its model and library are not there any more.
        """
        with self._lock:
            asked, opened = self._recent.get(answer, (None, None))
        if asked is None or opened is None or asked.who != who or self._current() is not opened:
            raise ChangedError
        wanted = Wanted((method,))
        drawn = draw(explain_question(opened.desk, self._hospital, asked.picture, asked.question, wanted), method)
        with alone_at(self._hospital):
            if _state(self._hospital, opened.desk) != opened.state:
                raise ChangedError
        return drawn

    def _current(self) -> _Opened:
        with self._lock:
            run = self._follow().resolve()
            opened = self._opened
            if opened is None or opened.run != run or _state(self._hospital, opened.desk) != opened.state:
                self._opened = None
                self._recent.clear()
                self._opened = opened = self._open(run)
                self._on_opened()
            return opened

    def _open(self, run: Path) -> _Opened:
        with alone_at(self._hospital):
            place = open_place(run, self._hospital, "library", personal=self._personal)
            desk = open_desk(place, KEPT_BYTES)
            self._refuse_half_forgotten(desk)
            adapter = find(place.adapter.relative_to(ROOT).as_posix()).digest
            return _Opened(desk, Model(run.name, adapter), run, Drift(), _state(self._hospital, desk))

    def _refuse_half_forgotten(self, desk: Desk) -> None:
        rows = forgotten_at(ROOT / "hospitals" / self._hospital)
        digests = {digest for row in rows for digest in (row["digest"], *row["images"])}
        if any(is_forgotten(case, digests) for case in desk.cases.values()):
            raise StudyError(
                f"Expected no case of a patient who withdrew from {self._hospital}, found some: `fed-rag forget` was "
                "interrupted, or the run is older; run it again for this patient."
            )

    def _remember(self, asked: Iterable[Asked], opened: _Opened) -> None:
        with self._lock:
            if self._opened is opened:
                self._recent.update({each.picture.id: (each, opened) for each in asked})
                while len(self._recent) > RECENT:
                    self._recent.popitem(last=False)


def _state(hospital: str, desk: Desk) -> tuple[str, ...]:
    """What must stay for the desk to be the hospital's: digests of its folders, and of the list of withdrawals."""
    place = desk.place
    names = ("cases", "features", "library", "calibration", "tuning")
    paths = [*paths_of(place.folders, names), place.adapter.relative_to(ROOT).as_posix()]
    withdrawals = ROOT / "hospitals" / hospital / FORGOTTEN
    listed = hashlib.sha256(withdrawals.read_bytes()).hexdigest() if withdrawals.exists() else ""
    return (*map(_digest, paths), listed)


def _digest(path: str) -> str:
    try:
        return find(path).digest
    except (OSError, ValueError, KeyError):
        return ""
