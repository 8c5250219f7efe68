"""The settings each kind of recipe has: frozen models in which every number is checked.

`adapt.recipe` reads them from YAML. Timesteps are always those of the 1000-step schedule.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from degradations.piece import NonNegative, Odd, Positive, Qualities, Share
from degradations.pieces import AnyPiece

Timestep = Annotated[int, Field(ge=0, le=1000)]
Weight = Annotated[float, Field(ge=0)]


class Settings(BaseModel):
    """Base of all settings: frozen; unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# ---------------------------------------------------------------- targets


class LowFrequencySettings(Settings):
    """The low-frequency constraint of DT-BFR, Algorithm 1."""

    name: Literal["low_frequency"] = "low_frequency"
    factor: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="N: the low-pass filter downsamples by this factor, and up again; left out, each photo has its own,"
        " by its blur",
    )
    last_t: Timestep = Field(description="L: the constraint acts while t is above this timestep")


class GaussianBlurSettings(Settings):
    """Guidance by Gaussian blurs: DynFaceRestore, Algorithms 1 and 3."""

    name: Literal["gaussian_blur"] = "gaussian_blur"
    weights: list[PositiveFloat] = Field(
        default=[1.0], min_length=1, max_length=4, description="lambda of one to four guidances (Table 7)"
    )
    scale: PositiveFloat = Field(default=1.0, description="s of the step along the gradient")
    std_rate: Weight = Field(default=1.0, description="s of the step that refines the std; 0 leaves it as estimated")
    gradient: Literal["network", "x0"] = Field(
        default="network", description="network: with respect to x_t, a backward pass; x0: cheaper, at the prediction"
    )
    limit: bool = Field(default=True, description="no step goes further than where a linear misfit would vanish")
    adjuster: bool = Field(default=False, description="scale each pixel's gradient by the guidance adjuster's map")
    regions: PositiveInt = Field(default=1, description="windows along a side with a blur level of their own")


class DirectSettings(Settings):
    """When a photo is worse for having been restored, and is sampled towards as it is: DT-BFR App. F."""

    max_low_frequency_change: PositiveFloat = Field(
        default=0.08, description="mean absolute difference of photo and restored photo at 16 x 16, in [0, 1]"
    )
    error_ratio: PositiveFloat = Field(
        default=1.5, description="the prior's error on the restored photo over that on the photo, both blurred alike"
    )


class TargetSettings(Settings):
    """How pseudo-targets are drawn. What is left out where the pack can tell is chosen for each photo by its blur."""

    kind: Literal["targets"] = "targets"
    method: Literal["low-frequency", "dynamic", "adaptive"] = "low-frequency"
    start_t: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description="K: the photo is noised to this timestep; left out, each photo to its own of the start-step table",
    )
    guidance: list[Annotated[LowFrequencySettings | GaussianBlurSettings, Field(discriminator="name")]] = Field(
        description="terms, applied in this order"
    )
    steps: Annotated[int, Field(gt=0, le=1000)] = Field(
        description="network evaluations from start_t down to 0; without a start_t, from 999, and each photo takes the"
        " share that lies below its own"
    )
    solver: Literal["ddpm", "ddim", "dpm++2m"] = "ddpm"
    eta: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=0.0, description="noise of DDIM: 0 none, 1 as ancestral; null: a tenth of each photo's std at 512 px"
    )
    direct: DirectSettings | None = Field(
        default=None, description="when to sample towards the photo itself; left out, never"
    )
    draws: PositiveInt = Field(
        default=1, description="targets of each photo, of different noise; fine-tuning sees another one at each step"
    )
    seed: Annotated[int, Field(ge=0)] = 0
    batch: PositiveInt = Field(default=8, description="targets at a time; halved when memory runs out")
    gate: GateSettings = Field(default_factory=lambda: GateSettings())
    compat: Literal["none", "dt-bfr"] = Field(default="none", description="dt-bfr: the public code's steps exactly")

    @property
    def needs_blur(self) -> bool:
        """Whether anything is chosen by a photo's blur level."""
        chosen = self.start_t is None or self.eta is None or self.direct is not None
        return chosen or any(term.name == "gaussian_blur" or term.factor is None for term in self.guidance)

    @property
    def needs_adjuster(self) -> bool:
        """Whether a term asks for the guidance adjuster."""
        return any(term.name == "gaussian_blur" and term.adjuster for term in self.guidance)

    @model_validator(mode="after")
    def _terms_are_those_of_the_method(self) -> TargetSettings:
        names = [term.name for term in self.guidance]
        blurs, lows = names.count("gaussian_blur"), names.count("low_frequency")
        expected, fits = {
            "low-frequency": ("no gaussian_blur", blurs == 0),
            "dynamic": ("one gaussian_blur and nothing else", blurs == 1 and lows == 0),
            "adaptive": ("one gaussian_blur, and low_frequency", blurs == 1 and lows > 0),
        }[self.method]
        if not fits:
            got = ", ".join(names) or "nothing"
            raise ValueError(f"guidance: method {self.method} has {expected}; got {got}")
        return self


class GateSettings(Settings):
    """Which targets are good enough to train on."""

    max_low_frequency_change: PositiveFloat = Field(
        default=0.08,
        description="largest mean absolute difference of target and restored photo below the cut, in [0, 1]",
    )
    min_contrast: Annotated[float, Field(ge=0)] = Field(
        default=0.02, description="smallest standard deviation of a target: below it the picture is flat"
    )


# ---------------------------------------------------------------- fine-tuning


class DiscriminatorSettings(Settings):
    """The U-Net discriminator with spectral norm (FACTS: num_feat 64)."""

    features: PositiveInt = 64
    learning_rate: PositiveFloat = 2e-5


class TuningSettings(Settings):
    """What every fine-tuning shares; the losses are those on pictures, DT-BFR Eq. (6)-(8)."""

    steps: PositiveInt
    batch: PositiveInt = 16
    learning_rate: PositiveFloat = 2e-5
    final_learning_rate: PositiveFloat = Field(
        default=5e-6, description="end of the cosine; the discriminator's is constant"
    )
    weight_decay: Weight = 0.0
    l1: Weight = 1.0
    perceptual: Weight = Field(default=0.1, description="weight of the mean perceptual distance")
    adversarial: Weight = 0.1
    discriminator: DiscriminatorSettings = DiscriminatorSettings()
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.999, description="decay per step; 0 switches it off")
    flips: bool = Field(default=True, description="mirror half of the pairs")
    holdout: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="share of photos kept back for `best`"
    )
    evaluate_every: PositiveInt = Field(
        default=500, description="steps between evaluations, checkpoints and sample sheets"
    )
    seed: Annotated[int, Field(ge=0)] = 0


class FinetuneSettings(TuningSettings):
    """Fine-tuning of any restorer on (photo, pseudo-target) pairs: DT-BFR Eq. (6)-(8)."""

    kind: Literal["finetune"] = "finetune"
    objective: Literal["image"] = "image"


class CodeFinetuneSettings(TuningSettings):
    """Fine-tuning of a CodeFormer by its codes: DT-BFR Eq. (13), App. C.2; rate, batch, EMA of the public code."""

    kind: Literal["finetune-codes"] = "finetune-codes"
    objective: Literal["codes"] = "codes"
    batch: PositiveInt = 8
    learning_rate: PositiveFloat = 1e-4
    final_learning_rate: PositiveFloat = Field(default=2.5e-5, description="end of the cosine")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.995, description="decay per step; 0 switches it off")
    feature: Weight = Field(default=1.0, description="of the encoder's distance to the target's codes")
    token: Weight = Field(default=0.5, description="lambda_token: of the cross-entropy on the target's codes")
    trains: list[Literal["encoder", "transformer", "fusion"]] = Field(
        default=["encoder", "transformer"], min_length=1, description="parts that learn (Table 5); the rest is frozen"
    )
    teacher: str = Field(
        default="codebook",
        description="whose encoder gives the target's codes: `codebook`, the pack's VQGAN, as in the paper; `restorer`,"
        " the frozen CodeFormer's own, as in the public code; or a VQGAN's file",
    )
    l1: Weight = Field(default=0.0, description="of the picture at `fidelity`; like the next two, it trains the fusion")
    perceptual: Weight = 0.0
    adversarial: Weight = 0.0
    fidelity: Annotated[float, Field(ge=0, le=1)] = Field(default=1.0, description="w of the pictures trained on")

    @model_validator(mode="after")
    def _losses_have_what_they_train(self) -> CodeFinetuneSettings:
        pictures = bool(self.l1 or self.perceptual or self.adversarial)
        if pictures != ("fusion" in self.trains) or (pictures and not self.fidelity):
            raise ValueError(
                "losses on pictures (l1, perceptual, adversarial) train the fusion at a fidelity above 0, and nothing"
                " else does: name fusion in trains and give one of them a weight, or neither"
            )
        if not (self.feature or self.token) and set(self.trains) != {"fusion"}:
            raise ValueError("feature and token: one needs a weight, to train the encoder or the transformer")
        if not self.token and "transformer" in self.trains:
            raise ValueError("token: the transformer learns from nothing else, so it needs a weight")
        return self


# ---------------------------------------------------------------- damage


class DegradeSettings(Settings):
    """Damage for good pictures: a chain of pieces."""

    kind: Literal["degrade"] = "degrade"
    pieces: list[AnyPiece] = Field(min_length=1, description="applied in this order; lengths are for 512 pixels")
    seed: Annotated[int, Field(ge=0)] = 0


# ---------------------------------------------------------------- pre-training


class TrainingSettings(Settings):
    """What every pre-training shares."""

    steps: PositiveInt
    batch: PositiveInt
    size: PositiveInt = Field(description="side of the square pictures, in pixels")
    learning_rate: PositiveFloat
    warmup: Annotated[int, Field(ge=0)] = 0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    save_every: PositiveInt = 500
    seed: Annotated[int, Field(ge=0)] = 0


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

    @model_validator(mode="after")
    def _levels_agree(self) -> UNetSettings:
        if len(self.channel_mult) != len(self.num_res_blocks):
            raise ValueError(
                f"channel_mult has {len(self.channel_mult)} levels and num_res_blocks {len(self.num_res_blocks)};"
                " they must agree"
            )
        return self


class PriorPhase(Settings):
    """A stretch of the prior's training at one resolution."""

    steps: PositiveInt
    size: PositiveInt
    batch: PositiveInt


class PriorSettings(Settings):
    """Pre-training of the diffusion prior."""

    kind: Literal["pretrain-prior"] = "pretrain-prior"
    network: UNetSettings
    phases: list[PriorPhase] = Field(min_length=1, description="from small and cheap to full resolution")
    learning_rate: PositiveFloat = 3e-4
    warmup: Annotated[int, Field(ge=0)] = 200
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    snr_cap: PositiveFloat = Field(default=5.0, description="gamma of min-SNR loss weights")
    variance_weight: Weight = Field(
        default=0.001, description="weight of the variational bound that trains the variance"
    )
    save_every: PositiveInt = 500
    seed: Annotated[int, Field(ge=0)] = 0


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

    img_size: PositiveInt = Field(default=512, description="side of the pictures, in pixels: the only one it takes")
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
        """Sides of the feature maps, from the picture's down to the codes'."""
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


class BlindSettings(Settings):
    """Ranges of the blind degradation, from low to high: DT-BFR Eq. (9)/(11)."""

    blur_std: Positive = (0.1, 15.0)
    downsample: Positive = (0.8, 32.0)
    noise: NonNegative = Field(default=(0.0, 20.0), description="standard deviation on the scale of 255")
    jpeg: Qualities = (30, 100)
    isotropic: Share = 0.5
    grey: Share = 0.01
    kernel_size: Odd = 41


class RestorerSettings(TrainingSettings):
    """Pre-training of SwinIR on the blind degradation."""

    kind: Literal["pretrain-restorer"] = "pretrain-restorer"
    network: SwinIRSettings
    degradation: BlindSettings = BlindSettings()
    final_learning_rate: PositiveFloat = 5e-6
    l1: Weight = 1.0
    perceptual: Weight = 0.1
    adversarial: Weight = 0.0


class PatchDiscriminatorSettings(Settings):
    """The discriminator of patches in the public layout of CodeFormer's VQGAN."""

    features: PositiveInt = Field(default=64, description="width of the first layer; each doubles it, up to 8 times")
    layers: PositiveInt = Field(default=4, description="layers that halve the size")


class CodebookSettings(TrainingSettings):
    """Pre-training of a codebook: stage I of CodeFormer."""

    kind: Literal["pretrain-codebook"] = "pretrain-codebook"
    network: VQGANSettings
    l1: Weight = 1.0
    perceptual: Weight = 1.0
    codebook: Weight = Field(default=1.0, description="pulls codes to what the encoder says")
    commitment: Weight = Field(default=0.25, description="beta: holds what the encoder says to the codes")
    adversarial: Weight = Field(default=0.8, description="times the weight that balances the gradients; 0: no GAN")
    adversarial_from: Annotated[int, Field(ge=0)] = Field(default=0, description="the step at which the GAN begins")
    discriminator: PatchDiscriminatorSettings = PatchDiscriminatorSettings()
    idle: PositiveInt = Field(default=100, description="steps after which a code that none chose is placed anew")

    @model_validator(mode="after")
    def _size_is_the_networks(self) -> CodebookSettings:
        if self.size != self.network.img_size:
            raise ValueError(f"size {self.size} is not network.img_size {self.network.img_size}; they must agree")
        return self


class CodePredictorSettings(TrainingSettings):
    """Pre-training of CodeFormer's encoder and transformer: stage II."""

    kind: Literal["pretrain-code-predictor"] = "pretrain-code-predictor"
    codebook: str | None = Field(
        default=None, description="weights of stage I: a run or a file; left out, the pack's codebook"
    )
    dim_embd: PositiveInt = Field(default=512, description="width of the transformer; its MLP is twice as wide")
    n_head: PositiveInt = 8
    n_layers: PositiveInt = 9
    connect_list: list[PositiveInt] = Field(
        default=[32, 64, 128, 256], description="sides of the feature maps on which fidelity acts; stage III trains it"
    )
    adain: bool = Field(default=True, description="give codes the mean and spread of the photo's features")
    feature: Weight = Field(default=1.0, description="of the encoder's distance to the clean face's codes")
    token: PositiveFloat = Field(default=0.5, description="of the cross-entropy on the clean face's codes")
    degradation: BlindSettings = BlindSettings()


class FusionSettings(TrainingSettings):
    """Pre-training of CodeFormer's controllable feature transformation: stage III."""

    kind: Literal["pretrain-fusion"] = "pretrain-fusion"
    codebook: str | None = Field(
        default=None, description="weights of stage I: a run or a file; left out, the pack's codebook"
    )
    start: str | None = Field(
        default=None, description="weights of stage II: a run or a file; left out, the pack's codeformer"
    )
    fidelity: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, description="w of the pictures trained on")
    l1: Weight = 1.0
    perceptual: Weight = 1.0
    adversarial: Weight = Field(default=0.8, description="times the weight that balances the gradients; 0: no GAN")
    adversarial_from: Annotated[int, Field(ge=0)] = Field(default=0, description="the step at which the GAN begins")
    discriminator: PatchDiscriminatorSettings = PatchDiscriminatorSettings()
    feature: Weight = Field(default=1.0, description="of the encoder's distance to the clean face's codes")
    token: PositiveFloat = Field(default=0.5, description="of the cross-entropy on the clean face's codes")
    degradation: BlindSettings = BlindSettings()


class PerceptualSettings(TrainingSettings):
    """Pre-training of the pack's perceptual network."""

    kind: Literal["pretrain-perceptual"] = "pretrain-perceptual"
    channels: list[PositiveInt] = Field(description="width of each stage; each halves the resolution of the last")


class BlurNetworkSettings(Settings):
    """The blur estimator of DynFaceRestore: the transfer model TM, and the std estimator SDE (Table 4)."""

    size: PositiveInt = Field(description="side of the pictures it was trained on, in pixels")
    transfer: SwinIRSettings
    channels: list[PositiveInt] = Field(
        default=[64, 128, 256], min_length=1, description="width of each pair of SDE's convolutions"
    )


class BlurEstimatorSettings(TrainingSettings):
    """Pre-training of the blur estimator: DynFaceRestore Eq. (20)-(22)."""

    kind: Literal["pretrain-blur-estimator"] = "pretrain-blur-estimator"
    transfer: SwinIRSettings | None = Field(
        default=None, description="layout of TM; left out, TM begins as a copy of the pack's restorer"
    )
    channels: list[PositiveInt] = Field(
        default=[64, 128, 256], min_length=1, description="width of each pair of SDE's convolutions"
    )
    first_stage: Annotated[int, Field(ge=0)] = Field(
        description="steps of SDE alone, on true Gaussian blurs; the rest train TM and SDE together on degraded photos"
    )
    xi: PositiveFloat | None = Field(
        default=None,
        description="tolerance of the labels, mean absolute difference in [0, 1]; left out, the one that spreads them"
        " most evenly",
    )
    survey: PositiveInt = Field(default=256, description="faces whose labels are counted before the first step")
    picture: Weight = Field(
        default=50.0, description="gamma: weight of TM's picture in [0, 1] next to the std in pixels at 512"
    )
    degradation: BlindSettings = Field(
        default=BlindSettings(isotropic=1.0, grey=0.0), description="of the second stage; the paper's, Eq. (18)"
    )

    @model_validator(mode="after")
    def _stages_fit(self) -> BlurEstimatorSettings:
        if self.first_stage > self.steps:
            raise ValueError(f"first_stage {self.first_stage} is more than all {self.steps} steps")
        return self


class StartStepsSettings(Settings):
    """The start-step table of DynFaceRestore, Eq. (11): from which timestep on a blur no longer shows."""

    kind: Literal["pretrain-start-steps"] = "pretrain-start-steps"
    size: PositiveInt = Field(description="side of the square pictures, in pixels")
    statistic: Literal["share", "mean", "largest"] = Field(
        default="share", description="which difference of the log spectra over the frequencies must be within tol"
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.95, description="of the frequencies, for the statistic of that name"
    )
    tol: PositiveFloat = Field(default=1e-3, description="largest difference of the log spectra")


class AdjusterNetworkSettings(Settings):
    """The guidance adjuster of DynFaceRestore, Table 5."""

    features: PositiveInt = Field(default=64, description="width of its two hidden layers")
    model_channels: PositiveInt = Field(description="of the prior whose time embedding it holds")


class AdjusterSettings(TrainingSettings):
    """Pre-training of the guidance adjuster: DynFaceRestore Algorithm 2."""

    kind: Literal["pretrain-guidance-adjuster"] = "pretrain-guidance-adjuster"
    features: PositiveInt = Field(default=64, description="width of the adjuster's two hidden layers")
    first_stage: Annotated[int, Field(ge=0)] = Field(
        description="steps towards faces with a true Gaussian blur; the rest are towards the blur-level mapping"
    )
    stride: PositiveInt = Field(default=1, description="timesteps between x_t and the sample that is judged")
    blur_std: Positive = Field(
        default=(0.1, 15.0), description="of the first stage, in pixels at 512; scaled to `size`"
    )
    degradation: BlindSettings = Field(default=BlindSettings(), description="of the second stage")
    wavelet: str = Field(default="sym19", description="PyWavelets' name of it")
    bands: tuple[Weight, Weight, Weight, Weight] = Field(
        default=(0.0, 0.01, 0.01, 0.05), description="loss weights of the sub-bands LL, LH, HL and HH"
    )
    perceptual: Weight = Field(default=1.0, description="weight of DISTS, or of the pack's perceptual distance")

    @model_validator(mode="after")
    def _stages_fit(self) -> AdjusterSettings:
        if self.first_stage > self.steps:
            raise ValueError(f"first_stage {self.first_stage} is more than all {self.steps} steps")
        return self


TargetSettings.model_rebuild()
