"""What travels between the stages of a federation: references to what each hospital has."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from tasks.store import Ref, find


class LibrarySources(BaseModel):
    """A hospital by name, and its own folders that its library is built from."""

    model_config = ConfigDict(frozen=True)

    name: str
    cases: Ref
    features: Ref
    encoded: Ref | None = None
    """Rows of an encoder; None where the base's features and the words of questions are compared."""


class HospitalRefs(BaseModel):
    """A hospital by name, its own folders, and the adapter that it trains on or answers with."""

    model_config = ConfigDict(frozen=True)

    name: str
    cases: Ref
    features: Ref
    library: Ref
    adapter: Ref

    @classmethod
    def at(cls, name: str, places: Mapping[str, Any]) -> Self:
        """A hospital of a finished run, from where its `references.json` says that everything of it is."""
        return cls(name=name, **{part: find(places[part]) for part in ("cases", "features", "library", "adapter")})

    def given(self, adapter: Ref) -> Self:
        """The same hospital with another adapter."""
        return self.model_copy(update={"adapter": adapter})
