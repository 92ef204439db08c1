"""An answer on its way to one client: words from the batcher's thread, read on the event loop."""

import asyncio
from collections.abc import AsyncIterator


class Stream:
    """The words of one answer. It is made on the event loop that reads it; `tell` and `end` are for any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._words: asyncio.Queue[str | None] = asyncio.Queue()
        self.told = ""
        """What was told so far."""

    def tell(self, text: str) -> None:
        """Tell the answer so far; only what is new is sent.

        A character whose bytes are not all there yet waits, and so does a text that goes on otherwise than it began.
        """
        if text.startswith(self.told) and not text.endswith("\ufffd") and len(text) > len(self.told):
            self._put(text[len(self.told) :])
            self.told = text

    def end(self) -> None:
        """Say that no more follows."""
        self._put(None)

    async def words(self) -> AsyncIterator[str]:
        """Each new piece of the text, as it is told."""
        while (piece := await self._words.get()) is not None:
            yield piece

    def _put(self, piece: str | None) -> None:
        self._loop.call_soon_threadsafe(self._words.put_nowait, piece)
