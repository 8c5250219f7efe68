"""A phone's night mode as one degradation: the simple camera that the tables at 128 pixels were measured with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from degradations.pieces.base import Degradation, Parameters, seeded

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from degradations.camera.camera_noise import CameraNoise as Camera

_Level = Annotated[float, Field(ge=0)]
_Gain = Annotated[float, Field(ge=1)]


class CameraNoise(Degradation):
    """`degradations.camera.camera_noise` at one sensitivity. The degradation `camera` is the calibrated one.

    The noise follows the light in the image's own stream: "seed" is that of the whole stream.

    Source: DT-BFR Eq. (10)/(12), with simpler parts; see there.
    """

    name: Literal["camera_noise"] = "camera_noise"
    scale: Annotated[int, Field(ge=1)] = Field(default=2, description="both sides shrink by this; must divide them")
    gain: _Level = Field(description="variance of the noise per unit of signal, 1 being the sensor's full range")
    read_noise: _Level = Field(description="standard deviation in the dark, on the same scale")
    exposure_spread: _Level = Field(default=0.25, description="half width of the range of exposures, stops")
    red: tuple[_Gain, _Gain] = Field(default=(2.1, 1.4), description="white balance in daylight and under a bulb")
    blue: tuple[_Gain, _Gain] = Field(default=(1.5, 2.4), description="likewise")

    def draw(self, generator: torch.Generator, shape: tuple[int, int]) -> Parameters:
        from dataclasses import asdict

        del shape
        return {**asdict(self._camera().draw(generator)), "seed": generator.initial_seed()}

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:
        from degradations.camera.camera_noise import CameraParameters

        noise = seeded(parameters["seed"])
        self._camera().draw(noise)  # the noise comes after these draws
        light = {key: parameters[key] for key in ("red", "blue", "gain", "read_noise")}
        return self._camera().apply(image, CameraParameters(**light), noise)

    def _camera(self) -> Camera:
        from degradations.camera.camera_noise import CameraNoise as Camera

        return Camera(**self.model_dump(exclude={"name", "probability"}))
