"""A photograph by a calibrated camera as one degradation of a chain: DT-BFR's target domains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from degradations.camera.profiles import find_profile, read_profile
from degradations.pieces.base import Degradation, Parameters, Positive, fractions, new_seed, seeded, within
from degradations.places import places

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class CameraDegradation(Degradation):
    """Shrunk, taken by a camera at an ISO in some light, rendered, and enlarged again.

    A photograph draws its ISO and its light, both uniform; "seed" is that of its noise. A relative path of a profile is
    looked up in `degradations.places`; it is kept whole.

    Source: DT-BFR Eq. (10)/(12); its moderate and severe domains are ISO 1600 and 3200 at scales of 4 and 8. Differs
    from its public code: the camera is the profile's, the demosaicing no network, white balance comes before it, and
    DN are whole numbers.
    """

    name: Literal["camera"] = "camera"
    profile: str = Field(default="generic-phone", description="a camera that ships, or the path of a profile")
    iso: Positive = Field(description="range within that of the profile")
    scale: Annotated[int, Field(ge=1)] = Field(
        default=4, description="both sides shrink by this before the sensor, for images of 512 px; a whole number"
    )
    curve: Literal["gamma", "srgb", "smoothstep"] = Field(
        default="gamma", description="tone: the power of 2.2, sRGB's curve, or a camera's S-shaped one"
    )
    demosaic: Literal["bilinear", "malvar", "hamilton-adams"] = Field(
        default="bilinear", description="bilinear is nearest to the paper's network under noise, the last is sharpest"
    )
    noise: Literal["gaussian", "poisson"] = Field(default="gaussian", description="poisson counts photons")
    quantise: bool = Field(default=True, description="the sensor's numbers are whole")
    clip_black: bool = Field(default=True, description="nothing under the black level reaches the demosaicing")
    rounding: Literal["truncate", "round"] = Field(default="truncate", description="of the image to 255ths")

    @field_validator("profile")
    @classmethod
    def _readable(cls, profile: str, info: ValidationInfo) -> str:
        found = find_profile(profile, places(profile, info.context))
        read_profile(found)
        return found

    @model_validator(mode="after")
    def _known_isos(self) -> Self:
        for iso in self.iso:
            read_profile(self.profile).at_iso(iso)
        return self

    def identity(self) -> Parameters:
        return {**super().identity(), "profile": read_profile(self.profile).digest()}

    def scaled(self, factor: float) -> Self:
        """The scale for smaller images, to the nearest whole number, at least 1."""
        return self.model_copy(update={"scale": max(1, int(self.scale * factor + 0.5))})

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        from dataclasses import asdict

        from degradations.camera.photograph import shot_at

        del shape
        iso, place = fractions(generator, 2)
        shot = shot_at(read_profile(self.profile), within(self.iso, iso), place)
        return {**_listed(asdict(shot)), "seed": new_seed(generator)}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.camera.photograph import Camera, Shot, photograph

        camera = Camera(**self.model_dump(exclude={"name", "probability", "profile", "iso"}))
        shot = Shot(**{key: value for key, value in parameters.items() if key not in ("name", "seed")})
        return photograph(image[None], [shot], [seeded(parameters["seed"])], camera=camera).images[0]


def _listed(values: Parameters) -> Parameters:
    """Tuples as lists, as JSON gives them back."""
    return {key: _as_lists(value) for key, value in values.items()}


def _as_lists(value: object) -> object:
    return [_as_lists(each) for each in value] if isinstance(value, tuple) else value
