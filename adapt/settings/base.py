"""What all settings share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Timestep = Annotated[int, Field(ge=0, le=1000)]
Weight = Annotated[float, Field(ge=0)]
Distance: TypeAlias = Literal["pack", "lpips", "auto"]
"""The perceptual distance that a loss weight is for: of the pack, LPIPS, or LPIPS where its weights are on the machine
and else that of the pack. Their scales differ: a weight belongs to one of them."""


class Settings(BaseModel):
    """Base of all settings: frozen; unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def identity(self) -> dict[str, Any]:
        """All that a result follows from, as JSON holds it; what is named by a path may be there by its content."""
        return self.model_dump(mode="json")
