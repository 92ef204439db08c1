"""Sends words of answers while they are generated, as long as the hospital's folders rest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from flows.serve.answerer import Reply
from flows.serve.asked import Asked, BrokenOffError, Given, Model, entry_of
from flows.serve.asked_log import Entry, alone_at, append
from flows.serve.desk import Desk
from flows.serve.prepared import PreparedQuestion
from tasks.engine.generate import Heard, Watch


class MovedError(Exception):
    """The hospital's folders changed while words were about to be sent."""


class Telling:
    """Tells the words of a batch's streamed answers, none before it is logged what was shown for it.

    Args:
        hospital: whose library it is.
        desk: what answers.
        model: the same, for the log.
        rests: whether the hospital's folders are still those of the desk; called under `alone_at`.
        asked: the batch.
    """

    def __init__(
        self, hospital: str, desk: Desk, model: Model, rests: Callable[[], bool], asked: Sequence[Asked]
    ) -> None:
        self._hospital, self._desk, self._model, self._rests, self._asked = hospital, desk, model, rests, asked
        self._prepared: Sequence[PreparedQuestion] = ()
        self._begun: set[int] = set()

    def watch(self, prepared: Sequence[PreparedQuestion]) -> Watch:
        """What follows the answers to the prepared questions."""
        self._prepared = prepared
        return Watch(frozenset(place for place, each in enumerate(self._asked) if each.stream), self._hear)

    def broken_off(self) -> dict[str, Given | Exception]:
        """For the answers that were begun but not given."""
        return {self._asked[place].picture.id: BrokenOffError() for place in self._begun}

    def _hear(self, heard: Mapping[int, Heard]) -> set[int]:
        """Tell what is sure not to be withheld, if the hospital's folders are still those in memory."""
        desk = self._desk
        most = desk.place.study.evaluation.max_new_tokens
        sure = {place: one for place, one in heard.items() if one.text and one.total / most >= desk.threshold}
        if sure:
            with alone_at(self._hospital):
                if not self._rests():
                    raise MovedError
                new = sure.keys() - self._begun
                if new:
                    append(self._hospital, [self._beginning(place) for place in sorted(new)])
                self._begun |= new
                for place, one in sure.items():
                    if stream := self._asked[place].stream:
                        stream.tell(one.text)
        return {place for place, each in enumerate(self._asked) if each.unwanted}

    def _beginning(self, place: int) -> Entry:
        asked, shown = self._asked[place], self._prepared[place].retrieved
        reply = Reply("", 0.0, 0.0, shown)
        whole = entry_of(asked, Given(reply, self._model, {}, asked.picture.id))
        return replace(whole, answer=None, state="begun")
