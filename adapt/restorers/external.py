"""Networks of the community, recognised and built by spandrel (the extra `models`): image to image, same size.

Each network keeps the licence of whoever made it.
"""

from __future__ import annotations

import warnings
from typing import cast

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from adapt.errors import UsageError, WeightsError
from adapt.restorers.inner import named_as_inner
from adapt.settings import Settings

ALIGNED_FACE = 512  # pixels: what face networks are made for, unless a pack says otherwise; none tells it in its file


class ExternalSettings(Settings):
    """What is known of a network that spandrel built."""

    layout: str = Field(description="spandrel's name of the architecture")
    minimum: int = Field(default=0, ge=0, description="smallest side the network takes")
    multiple: PositiveInt = Field(default=1, description="sides are multiples of this")
    square: bool = False


class ExternalNetwork(nn.Module):
    """(B, 3, H, W) RGB in [0, 1] to the same, not clamped, by a network with demands on its sizes.

    The edge is repeated at the right and bottom as far as the network demands, and the result is cropped. State-dict
    names are those of the network itself, so that other tools open what is written.

    Args:
        network: trainable; of several outputs, the first is the image.
        settings: its demands.
    """

    def __init__(self, network: nn.Module, settings: ExternalSettings) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.multiple = settings.multiple
        named_as_inner(self)

    def forward(self, photo: Tensor) -> Tensor:
        height, width = photo.shape[-2:]
        rows, columns = (self._demanded(side) for side in (height, width))
        if self.settings.square:
            rows = columns = max(rows, columns)
        output = self.network(F.pad(photo, (0, columns - width, 0, rows - height), mode="replicate"))
        image = output[0] if isinstance(output, tuple | list) else output
        return cast(Tensor, image)[..., :height, :width]

    def refuse_size(self, name: str, size: int) -> None:
        """Try it on faces of a size: what spandrel tells of a network does not say whether it takes no other than one.

        Args:
            name: the file, for the message.
            size: side of the faces, in pixels.

        Raises:
            UsageError: it takes larger images only, or fails at these, or does not keep their size.
        """
        if size < self.settings.minimum:
            raise UsageError(
                f"{name}: a {self.settings.layout} takes images of {self.settings.minimum} px or more, and these"
                f" faces have {size} px; take larger faces, or another restorer"
            )
        face = torch.full((1, 3, size, size), 0.5, device=next(self.parameters()).device)
        try:
            with torch.no_grad():  # not inference_mode: the network may keep a mask, and is trained with it later
                found = str(tuple(self(face).shape))
        except (RuntimeError, ValueError, AssertionError) as error:
            found = (str(error).splitlines() or [type(error).__name__])[0]
        if found != str(tuple(face.shape)):
            raise UsageError(
                f"{name}: a {self.settings.layout} does not restore faces of {size} px ({found}); take faces of the"
                " size it was made for, or another restorer"
            )

    def _demanded(self, side: int) -> int:
        smallest = max(side, self.settings.minimum) if self.settings.minimum else side
        return (smallest + self.multiple - 1) // self.multiple * self.multiple


def load_external(name: str, state: dict[str, Tensor]) -> tuple[ExternalSettings, ExternalNetwork] | None:
    """Have spandrel build the network of a state dict.

    Returns:
        Its demands and the network, in evaluation mode; None where spandrel is not installed or does not know it.

    Raises:
        WeightsError: a network that spandrel knows, but that does not restore images as they come: it changes their
            size or channels, asks for a mask, or needs conversions that spandrel keeps to itself.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of its own use of TorchScript
            import spandrel
    except ImportError:
        return None
    try:
        found = spandrel.MAIN_REGISTRY.load(dict(state))
    except spandrel.UnsupportedModelError:
        return None
    except (RuntimeError, ValueError, LookupError, AssertionError) as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise WeightsError(f"{name}: spandrel cannot build its network ({reason[0]})") from error
    layout = found.architecture.id
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise WeightsError(f"{name}: a {layout} that asks for a mask; expected one that takes an image alone")
    if (found.scale, found.input_channels, found.output_channels) != (1, 3, 3):
        raise WeightsError(
            f"{name}: a {layout} of {found.input_channels} to {found.output_channels} channels at {found.scale} times"
            " the size; expected 3 to 3 at the same size"
        )
    demands = found.size_requirements
    settings = ExternalSettings(
        layout=layout, minimum=demands.minimum, multiple=demands.multiple_of, square=demands.square
    )
    network = ExternalNetwork(found.model.eval(), settings).eval()
    side = max(demands.minimum, -(-64 // demands.multiple_of) * demands.multiple_of)
    ramp = torch.linspace(0.1, 0.9, side)
    probe = torch.stack([ramp[:, None] * ramp, ramp[:, None].expand(side, side), ramp.expand(side, side)])[None]
    with torch.no_grad():
        expected, own = found(probe), network(probe).clamp(0, 1)
    if own.shape != expected.shape or not torch.allclose(own, expected, rtol=0, atol=1e-4):
        raise WeightsError(
            f"{name}: a {layout}, which spandrel runs with conversions or random numbers of its own; it cannot be"
            " trained or exported as it is"
        )
    return settings, network
