"""Settings of the verdict: what each kind of evidence weighs, and when an adapted model is called better."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from adapt.settings.base import Settings, Weight

Evidence = Literal[
    "identity", "landmarks", "consistency", "prior", "trial_error", "trial_perceptual", "trial_identity", "sharpness"
]


class VerdictSettings(Settings):
    """When an adapted model is called better than the one it started from: a weighted sum of relative gains."""

    kind: Literal["verdict"] = "verdict"
    weights: dict[Evidence, Weight] = Field(
        description="of the gain of each kind of evidence, as a share of what the start has; left out, 0"
    )
    threshold: Weight = Field(
        default=0.0, description="the sum, and its whole 95 % interval over the photos, must lie above this"
    )
    limits: dict[Evidence, PositiveFloat] = Field(
        default={}, description="a loss of one kind, as such a share, beyond which no sum helps, if it is not chance"
    )
    strengths: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default=[1.0, 0.5],
        min_length=1,
        description="how far from the start's weights (0) to the adapted ones (1): each is judged, and the best taken",
    )
    photos: PositiveInt = Field(default=48, description="judged at most, spread evenly over all")

    def what_gains(self) -> dict[str, Any]:
        """What the gain of weights along a training follows from."""
        return self.model_dump(mode="json", include={"weights", "limits", "photos"})

    @model_validator(mode="after")
    def _something_weighs(self) -> VerdictSettings:
        if not any(self.weights.values()):
            raise ValueError("weights: no evidence weighs anything; give one a weight")
        return self
