"""Attributes one answer to its prompt: by each method, maps over the images, and each part's share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tasks.engine.attribution.attention import Layers, Trace, trace
from tasks.engine.attribution.layout import PARTS, Layout, layout
from tasks.engine.attribution.occlusion import occlude_parts, occlude_regions, region_shape
from tasks.engine.base import Base
from tasks.engine.batch import Example, encode
from tasks.engine.context import ordered
from tasks.engine.prompt import Query, build_prompt
from tasks.engine.vision import Features
from tasks.errors import StudyError
from tasks.explain.maps import Row, attention_row, relevance_row, rollout_row, share_by_part
from tasks.records import Image, Saliency, Share
from tasks.settings import ContextSettings

METHODS = ("attention", "rollout", "relevance", "occlusion")
REGIONS = 8
"""Most regions along each side of an image that occlusion covers, one at a time."""


@dataclass(frozen=True)
class Explanation:
    """The attribution of one answer to the parts of its prompt."""

    tokens: tuple[str, ...]
    """The answer's tokens, without the end token unless it is the only one."""
    probabilities: tuple[float, ...]
    """The model's probability of each token."""
    maps: tuple[Saliency, ...]
    """By method, one map per image, in the order of the prompt: the question's image is the last."""
    shares: tuple[Share, ...]

    def seen(
        self, method: str, layer: int | None = None, head: int | None = None
    ) -> tuple[list[Saliency], dict[str, float]]:
        """A method's maps, the question's image first and then the retrieved cases by rank, and each part's share."""
        place = (method, layer, head)
        maps = [each for each in self.maps if (each.method, each.layer, each.head) == place]
        shares = {each.part: each.share for each in self.shares if (each.method, each.layer, each.head) == place}
        return sorted(maps, key=lambda each: -1 if each.rank is None else each.rank), shares

    def map(self, method: str, rank: int | None = None) -> Saliency:
        """A method's map of the question's image, or of the image of the retrieved case with this rank."""
        return next(each for each in self.seen(method)[0] if each.rank == rank)

    def share(self, method: str) -> dict[str, float]:
        """Each part's share, by one method."""
        return self.seen(method)[1]


def explain(
    base: Base,
    features: Features,
    images: Mapping[str, Image],
    query: Query,
    how: ContextSettings,
    answer: str,
    methods: Sequence[str] = METHODS,
    token: int | None = None,
    heads: bool = False,
    tokens: int = 8192,
) -> Explanation:
    """Attribute an answer to its prompt, with the model's current adapter: call `Engine.switch` first.

    Args:
        base: the model.
        features: features of the prompt's images.
        images: the same images by id; may hold other images too.
        query: the case and its retrieved cases, nearest first.
        how: what the prompt shows of the retrieved cases, and in which order.
        answer: the answer to explain: usually the model's answer, not the reference.
        methods: some of METHODS.
        token: index of an answer token, from 0; None explains the whole answer. The weights of the whole answer are the
            mean over its tokens, after each token's weights are scaled to sum to 1. For occlusion, the falls in
            log-probability of its tokens are summed.
        heads: whether to add attention maps of each layer and head.
        tokens: most tokens, padding included, in one forward pass of occlusion.

    Raises StudyError if the answer has no such token.
    """
    prompt = replace(build_prompt(query.case, query.retrieved, query.similarities, how), answer=answer)
    (example,) = encode(base, features, [prompt])
    count = max(len(example.answer_ids) - 1, 1)
    if token is not None and not 0 <= token < count:
        raise StudyError(f"Expected a token of the answer, 0 to {count - 1}, found {token}.")
    chosen = list(range(count)) if token is None else [token]
    ranks = ordered(range(len(query.retrieved)), how.order, query.case.id) if how.show == "images+text" else []
    records = _AnswerRecords(query.case.id, token, layout(base, features, prompt), (*ranks, None), images, base)
    traced = trace(base, features, example)
    maps: list[Saliency] = []
    shares: list[Share] = []
    for view in _views(traced, methods, heads):
        row = view.row(traced, chosen)
        shares += records.shares(view, share_by_part(row, records.layout.parts, PARTS))
        pieces = [row[place.positions].reshape(place.rows, place.columns) for place in records.layout.places]
        maps += records.maps(view, pieces)
    if "occlusion" in methods:
        view = _View("occlusion")
        parts, pieces = _occluded(base, features, images, example, records.layout, chosen, tokens)
        shares += records.shares(view, parts)
        maps += records.maps(view, pieces)
    words = tuple(str(base.tokenizer.decode([each])) for each in example.answer_ids[:count])
    return Explanation(words, tuple(traced.log_probs[:count].detach().exp().tolist()), tuple(maps), tuple(shares))


@dataclass(frozen=True)
class _View:
    """One attribution of an answer: a method, and for attention possibly a single layer or head."""

    method: str
    layers: Layers | None = None
    layer: int | None = None
    head: int | None = None

    def row(self, traced: Trace, tokens: Sequence[int]) -> Row:
        """The weights of the prompt's tokens, `(tokens of the prompt,)`: they sum to 1, or are all 0."""
        rows = []
        for token in tokens:
            row = ROWS[self.method](traced, self.layers or [], token)[: traced.prompt_length]
            total = row.sum()
            rows.append(row / total if total > 0 else row)
        return np.mean(rows, axis=0)


ROWS: Mapping[str, Callable[[Trace, Layers, int], Row]] = {
    "attention": lambda traced, layers, token: attention_row(layers, traced.prompt_length - 1 + token),
    "rollout": lambda traced, layers, token: rollout_row(layers, traced.prompt_length - 1 + token),
    "relevance": lambda traced, layers, token: relevance_row(
        layers, traced.gradients(token), traced.prompt_length - 1 + token
    ),
}


def _views(traced: Trace, methods: Sequence[str], heads: bool) -> Iterator[_View]:
    layers = traced.attention()
    yield from (_View(method, layers) for method in methods if method in ROWS)
    if heads and "attention" in methods:
        for number, layer in enumerate(layers):
            yield _View("attention", [layer], number)
            yield from (_View("attention", [layer[head : head + 1]], number, head) for head in range(len(layer)))


@dataclass(frozen=True)
class _AnswerRecords:
    """The fields that all records of one answer share, and the making of those records."""

    case_id: str
    token: int | None
    layout: Layout
    ranks: tuple[int | None, ...]
    images: Mapping[str, Image]
    base: Base

    def shares(self, view: _View, shares: Mapping[str, float]) -> list[Share]:
        """One `Share` per part."""
        place = (self.case_id, view.method, self.token, view.layer, view.head)
        return [Share(*place, part, share) for part, share in shares.items()]

    def maps(self, view: _View, pieces: Sequence[NDArray[np.float64]]) -> Iterator[Saliency]:
        """One `Saliency` per image of the prompt; `pieces` are the images' weights, `(rows, columns)` each."""
        place = (self.case_id, view.method, self.token, view.layer, view.head)
        for each, rank, weights in zip(self.layout.places, self.ranks, pieces, strict=True):
            image = self.images[each.image_id]
            window = self.base.family.window(self.base.image_processor, image.width, image.height)
            rows, columns = weights.shape
            flat, edges = tuple(weights.ravel().tolist()), tuple(map(float, window))
            yield Saliency(*place, each.image_id, rank, rows, columns, flat, edges)


def _occluded(
    base: Base,
    features: Features,
    images: Mapping[str, Image],
    example: Example,
    prompt_layout: Layout,
    chosen: Sequence[int],
    tokens: int,
) -> tuple[dict[str, float], list[NDArray[np.float64]]]:
    """Occlusion: each part's share, and for each image the fall in log-probability per region, `(rows, columns)`.

    Shares are proportional to the fall when the whole part is covered; negative falls count as 0.
    """
    falls = np.clip(occlude_parts(base, features, images, example, prompt_layout, tokens)[:, chosen].sum(1), 0, None)
    parts = [*(falls / falls.sum() if falls.any() else falls), 0.0]
    pieces = []
    for number, place in enumerate(
        tqdm(prompt_layout.places, desc="covering", unit="image", leave=False, disable=None)
    ):
        shape = region_shape(place, REGIONS)
        found = occlude_regions(base, features, images, example, number, shape, tokens)
        pieces.append(found[..., chosen].sum(-1))
    return dict(zip(PARTS, map(float, parts), strict=True)), pieces
