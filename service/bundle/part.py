"""What every piece of flow.json is: strict, frozen, and without a key that nobody knows."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Part"]


class Part(BaseModel):
    """A strict, frozen piece of the manifest: an unknown or misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
