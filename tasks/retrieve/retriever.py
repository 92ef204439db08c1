"""Retrieval from one hospital's library: search, then re-rank, then diversify.

The same `Retriever` builds and serves a library, so a later question finds the same neighbours as it would have found
when the library was built.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from tasks.records import Case, Neighbour
from tasks.retrieve.diversity import diversify
from tasks.retrieve.encoded import Inputs
from tasks.retrieve.fusion import Fused
from tasks.retrieve.library import Library
from tasks.retrieve.rerank import CaseRows, Scorer, learned_scorer, rerank_all
from tasks.retrieve.rows import Rows
from tasks.retrieve.similarity import Encoder, Texts

CANDIDATES = 50
"""Nearest cases that re-ranking and diversity choose from, at least."""


@dataclass(frozen=True)
class Queries:
    """Cases to find neighbours for."""

    cases: Sequence[Case]
    """Their images and patients decide which library cases each query must not retrieve."""
    images: Rows
    """Image features, `(n, d)`."""
    questions: Texts
    """`n` texts, or rows `(n, t)` of a text encoder."""


@dataclass(frozen=True)
class Retriever:
    """A library, and everything else that decides which of its cases are a query's neighbours."""

    library: Library
    encoder: Encoder | Fused
    cases: Mapping[str, Case]
    """The library's cases by id; may hold other cases too."""
    inputs: Inputs
    """The image and question rows of the library's cases."""
    depth: int
    """Neighbours per query; fewer only if the library has no more that may be shown."""
    scorer: Scorer | None = None
    """Re-ranks the candidates; None keeps the order of the search."""
    diversity: float = 0
    """Passed to `diversify`; 0 keeps the order."""

    @property
    def candidates(self) -> int:
        """How many of a query's nearest cases the search returns."""
        return max(self.depth, CANDIDATES) if self.scorer or self.diversity else self.depth

    def neighbours(self, queries: Queries) -> list[list[Neighbour]]:
        """Search and rank: at most `depth` neighbours of each query, by rank."""
        return self.rank(queries, self.search(queries))

    def search(self, queries: Queries) -> list[list[Neighbour]]:
        """At most `candidates` nearest cases of each query, nearest first."""
        rows = self.encoder.encode(queries.images, queries.questions)
        return self.library.search(rows, queries.cases, self.candidates)

    def rank(self, queries: Queries, found: Sequence[Sequence[Neighbour]]) -> list[list[Neighbour]]:
        """Re-rank and diversify each query's candidates, and keep the first `depth`."""
        cases = self._cases_of(found)
        if not cases:
            return [[] for _ in found]
        if self.scorer:
            found = rerank_all(found, self._query_rows(queries), self._stored_rows(cases), self.scorer, self.depth)
        if self.diversity:
            rows = self.encoder.encode(*self.inputs.of(cases))
            places = {case.id: place for place, case in enumerate(cases)}
            found = [
                diversify(each, rows[[places[one.neighbour_id] for one in each]], self.diversity, self.depth)
                for each in found
            ]
        return [list(each) for each in found]

    def learning(
        self, queries: Queries, found: Sequence[Sequence[Neighbour]], image_weight: float, left_out: Collection[str]
    ) -> "Retriever":
        """The same retriever with a scorer learned from the training cases among the queries (`learned_scorer`).

        Args:
            queries: the queries.
            found: what `search` found for them.
            image_weight: image weight of the fixed scorer, the fallback if nothing can be learned.
            left_out: ids of cases that the scorer must not learn from.
        """
        stored = self._stored_rows(self._cases_of(found))
        return replace(self, scorer=learned_scorer(found, self._query_rows(queries), stored, image_weight, left_out))

    def _query_rows(self, queries: Queries) -> CaseRows:
        return CaseRows(queries.cases, *self.encoder.parts(queries.images, queries.questions))

    def _stored_rows(self, cases: Sequence[Case]) -> CaseRows:
        return CaseRows(cases, *self.encoder.parts(*self.inputs.of(cases)))

    def _cases_of(self, found: Sequence[Sequence[Neighbour]]) -> list[Case]:
        """The distinct cases found."""
        names = dict.fromkeys(neighbour.neighbour_id for each in found for neighbour in each)
        return [self.cases[name] for name in names]
