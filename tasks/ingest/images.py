"""Keeps a dataset's images on disk while they are read: 25,000 radiographs take gigabytes."""

import tempfile
import weakref
from collections.abc import Iterable, Iterator, KeysView, Sequence
from typing import NamedTuple, overload

from tasks.records import Image


class _Place(NamedTuple):
    start: int
    length: int
    width: int
    height: int


class Images(Sequence[Image]):
    """Images in order; their bytes are in a temporary file (below TMPDIR) that is deleted with the object."""

    def __init__(self, images: Iterable[Image] = ()) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        weakref.finalize(self, self._file.close)
        self._places: dict[str, _Place] = {}
        self._end = 0
        for image in images:
            self.append(image)

    @property
    def ids(self) -> KeysView[str]:
        """The ids; no image is read."""
        return self._places.keys()

    def append(self, image: Image) -> None:
        """Append an image; its id must be new."""
        self._file.seek(self._end)
        self._file.write(image.data)
        self._places[image.id] = _Place(self._end, len(image.data), image.width, image.height)
        self._end += len(image.data)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image]: ...
    def __getitem__(self, index: int | slice) -> Image | list[Image]:
        names = list(self._places)[index]
        return self._read(names) if isinstance(names, str) else [self._read(name) for name in names]

    def __iter__(self) -> Iterator[Image]:
        return map(self._read, list(self._places))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Images) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Images({list(self)!r})"

    def _read(self, name: str) -> Image:
        place = self._places[name]
        self._file.seek(place.start)
        return Image(name, self._file.read(place.length), place.width, place.height)
