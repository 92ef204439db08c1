"""A hospital's private library: its training cases in a FAISS index."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np

from tasks.records import Neighbour
from tasks.retrieve.encoder import Rows


@dataclass(frozen=True)
class Library:
    """Cases by position in the index."""

    index: faiss.Index
    case_ids: tuple[str, ...]
    image_ids: tuple[str, ...]

    def search(
        self, rows: Rows, case_ids: Sequence[str], image_ids: Sequence[str], depth: int
    ) -> list[list[Neighbour]]:
        """The nearest cases of other images, nearest first: at most `depth` for each query, fewer in a small library.

        Args:
            rows: unit rows of the queries, `(n, d)`.
            case_ids: of the queries.
            image_ids: of the queries; a case of the same image is never returned.
            depth: neighbours wanted.
        """
        most = max(Counter(self.image_ids).values(), default=0)
        wanted = min(depth + most, len(self.case_ids))
        if not wanted:
            return [[] for _ in case_ids]
        similarities, positions = self.index.search(rows, wanted)
        similarities = similarities.clip(-1, 1)  # rounding leaves the range
        found = []
        for query, (case_id, image_id) in enumerate(zip(case_ids, image_ids, strict=True)):
            others = [
                (self.case_ids[position], similarity)
                for position, similarity in zip(positions[query].tolist(), similarities[query].tolist(), strict=True)
                if self.image_ids[position] != image_id
            ]
            found.append(
                [Neighbour(case_id, rank, other, similarity) for rank, (other, similarity) in enumerate(others[:depth])]
            )
        return found


def build_library(rows: Rows, case_ids: Sequence[str], image_ids: Sequence[str]) -> Library:
    """An exact inner-product index over unit rows `(n, d)`, in the order given."""
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return Library(index, tuple(case_ids), tuple(image_ids))


def index_to_bytes(index: faiss.Index) -> bytes:
    """The index as an ordinary FAISS file."""
    return faiss.serialize_index(index).tobytes()


def index_from_bytes(data: bytes) -> faiss.Index:
    """An index of an ordinary FAISS file."""
    return faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
