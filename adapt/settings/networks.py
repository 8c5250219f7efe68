"""Layouts of the networks a pack holds; a weights file carries the layout of its own."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from adapt.settings.base import Settings

NORM_GROUPS: Final = 32  # of the U-Net's normalisations


class UNetSettings(Settings):
    """The public U-Net layout; names as in the public configs."""

    image_size: PositiveInt
    model_channels: PositiveInt
    channel_mult: list[PositiveInt]
    num_res_blocks: list[Annotated[int, Field(ge=0)]]
    attention_resolutions: list[PositiveInt] = Field(description="sides of the feature maps that get attention")
    num_head_channels: PositiveInt = 64
    in_channels: PositiveInt = 3
    out_channels: PositiveInt = 6
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    conv_resample: bool = True
    use_new_attention_order: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mean_colour: bool = Field(
        default=False, description="whether it is told mean colour and contrast, which narrow levels cannot see"
    )
    output_gain: bool = Field(
        default=False, description="whether it says how much of what it found in lightness is used, a number an image"
    )

    @property
    def plain(self) -> UNetSettings:
        """Without what the public layout does not have."""
        return self.model_copy(update={"mean_colour": False, "output_gain": False})

    @model_validator(mode="after")
    def _levels_agree(self) -> UNetSettings:
        if len(self.channel_mult) != len(self.num_res_blocks):
            raise ValueError(
                f"channel_mult has {len(self.channel_mult)} levels and num_res_blocks {len(self.num_res_blocks)};"
                " they must agree"
            )
        widths = [self.model_channels * each for each in self.channel_mult]
        if odd := [width for width in widths if width % NORM_GROUPS]:
            raise ValueError(
                f"levels of {odd} channels (model_channels {self.model_channels} times channel_mult) cannot be"
                f" normalised in groups; take multiples of {NORM_GROUPS}"
            )
        return self


class OneStepSettings(Settings):
    """The one-step student: a diffusion prior's U-Net as a restorer."""

    network: UNetSettings
    t: Annotated[int, Field(ge=0, lt=1000)] = Field(
        default=300, description="timestep that the network is told, and at whose level the photo is scaled"
    )

    @model_validator(mode="after")
    def _takes_and_makes_images(self) -> OneStepSettings:
        if self.network.in_channels != 3 or self.network.out_channels not in (3, 6):
            raise ValueError(
                f"a U-Net of {self.network.in_channels} to {self.network.out_channels} channels; a prior of RGB images"
                " takes 3, and gives their noise in 3, or in 6 with the variance"
            )
        return self


class IdentityMaskLayout(Settings):
    """The network that says where identity guidance may act: `adapt.guidance.mask`."""

    features: PositiveInt = Field(description="channels at full size; twice as many at each half of it")
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(description="of Diffuse and Restore, Eq. 8, in [0, 1]")


class SwinIRSettings(Settings):
    """The public SwinIR layout; names as in the public configs."""

    img_size: PositiveInt = Field(description="token grid of the stored masks, not pixels, where unshuffle is on")
    embed_dim: PositiveInt
    depths: list[PositiveInt]
    num_heads: list[PositiveInt]
    window_size: PositiveInt = 8
    mlp_ratio: PositiveFloat = 2
    sf: PositiveInt
    img_range: PositiveFloat = 1.0
    num_feat: PositiveInt = Field(
        default=64, description="width of the upsampling convolutions; 64 in the public files"
    )
    upsampler: Literal["nearest+conv", ""] = "nearest+conv"
    resi_connection: Literal["1conv", "3conv"] = "1conv"
    unshuffle: bool = False
    unshuffle_scale: PositiveInt | None = None
    patch_size: PositiveInt = 1
    in_chans: PositiveInt = 3


class VQGANSettings(Settings):
    """The public layout of CodeFormer's VQGAN; names as in the public configs."""

    img_size: PositiveInt = Field(default=512, description="side of the images, in pixels: the only one it takes")
    nf: PositiveInt = Field(default=64, multiple_of=32, description="width at full size")
    ch_mult: list[PositiveInt] = Field(
        default=[1, 2, 2, 4, 4, 8], min_length=1, description="width of each level over nf; each halves the size"
    )
    res_blocks: PositiveInt = Field(default=2, description="residual blocks of each level")
    attn_resolutions: list[PositiveInt] = Field(
        default=[16], description="sides of the feature maps that get attention"
    )
    emb_dim: PositiveInt = Field(default=256, description="width of a code")
    codebook_size: PositiveInt = 1024

    @property
    def grid(self) -> int:
        """Codes along a side."""
        return self.img_size >> (len(self.ch_mult) - 1)

    @property
    def sides(self) -> list[int]:
        """Sides of the feature maps, from the image's down to the codes'."""
        return [self.img_size >> level for level in range(len(self.ch_mult))]

    @model_validator(mode="after")
    def _levels_divide_the_size(self) -> VQGANSettings:
        if self.grid << (len(self.ch_mult) - 1) != self.img_size:
            raise ValueError(
                f"img_size {self.img_size} cannot be halved {len(self.ch_mult) - 1} times, once for each level but one"
            )
        return self


class CodeFormerSettings(VQGANSettings):
    """The public layout of CodeFormer; names as in the public configs."""

    dim_embd: PositiveInt = Field(default=512, description="width of the transformer; its MLP is twice as wide")
    n_head: PositiveInt = 8
    n_layers: PositiveInt = 9
    connect_list: list[PositiveInt] = Field(
        default=[32, 64, 128, 256], description="sides of the feature maps on which fidelity acts"
    )
    adain: bool = Field(
        default=True, description="give codes the mean and spread of the photo's features, as public inference does"
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> CodeFormerSettings:
        if self.dim_embd % self.n_head:
            raise ValueError(f"dim_embd {self.dim_embd} is not a multiple of {self.n_head} heads")
        if strange := sorted(set(self.connect_list) - set(self.sides)):
            raise ValueError(f"connect_list: no feature map has a side of {strange}; there are {self.sides}")
        return self


class BlurNetworkSettings(Settings):
    """The blur estimator of DynFaceRestore: the transfer model TM, and the std estimator SDE (Table 4)."""

    size: PositiveInt = Field(description="side of the images it was trained on, in pixels")
    transfer: SwinIRSettings
    channels: list[PositiveInt] = Field(
        default=[64, 128, 256], min_length=1, description="width of each pair of SDE's convolutions"
    )


class AdjusterNetworkSettings(Settings):
    """The guidance adjuster of DynFaceRestore, Table 5."""

    features: PositiveInt = Field(default=64, description="width of its two hidden layers")
    model_channels: PositiveInt = Field(description="of the prior whose time embedding it holds")


class PatchDiscriminatorSettings(Settings):
    """The discriminator of patches in the public layout of CodeFormer's VQGAN."""

    features: PositiveInt = Field(default=64, description="width of the first layer; each doubles it, up to 8 times")
    layers: PositiveInt = Field(default=4, description="layers that halve the size")
