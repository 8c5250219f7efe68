"""The settings each kind of recipe has: frozen models in which every number is checked.

`adapt.settings.recipe` reads them from YAML. Timesteps are always those of the 1000-step schedule.
"""

from __future__ import annotations

from adapt.settings.base import Settings, Timestep, Weight
from adapt.settings.blur import AdjusterSettings, BlurEstimatorSettings, StartStepsSettings
from adapt.settings.codeformer import CodebookSettings, CodePredictorSettings, FusionSettings
from adapt.settings.damage import AugmentationSettings, BlindSettings, DegradeSettings
from adapt.settings.finetuning import (
    CodeFinetuneSettings,
    DiscriminatorSettings,
    FinetuneSettings,
    PatchAdversarySettings,
    ReplaySettings,
    TuningSettings,
)
from adapt.settings.networks import (
    AdjusterNetworkSettings,
    BlurNetworkSettings,
    CodeFormerSettings,
    OneStepSettings,
    PatchDiscriminatorSettings,
    SwinIRSettings,
    UNetSettings,
    VQGANSettings,
)
from adapt.settings.pretraining import (
    ConditionalPriorSettings,
    ConditionerSettings,
    DamageTrainingSettings,
    IdentityMaskSettings,
    NoiseLossSettings,
    OneStepTrainingSettings,
    PerceptualSettings,
    PriorPhase,
    PriorSettings,
    RestorerSettings,
    RestorerTrainingSettings,
    TrainingSettings,
)
from adapt.settings.targets import (
    FallbackSettings,
    GateSettings,
    GaussianBlurSettings,
    IdentitySettings,
    LikenessSettings,
    LowFrequencySettings,
    PhotoShareSettings,
    ReliabilitySettings,
    RestraintSettings,
    TargetSettings,
)
from adapt.settings.verdict import VerdictSettings

__all__ = [
    "AdjusterNetworkSettings",
    "AdjusterSettings",
    "AugmentationSettings",
    "BlindSettings",
    "BlurEstimatorSettings",
    "BlurNetworkSettings",
    "CodeFinetuneSettings",
    "CodeFormerSettings",
    "CodePredictorSettings",
    "CodebookSettings",
    "ConditionalPriorSettings",
    "ConditionerSettings",
    "DamageTrainingSettings",
    "DegradeSettings",
    "DiscriminatorSettings",
    "FallbackSettings",
    "FinetuneSettings",
    "FusionSettings",
    "GateSettings",
    "GaussianBlurSettings",
    "IdentityMaskSettings",
    "IdentitySettings",
    "LikenessSettings",
    "LowFrequencySettings",
    "NoiseLossSettings",
    "OneStepSettings",
    "OneStepTrainingSettings",
    "PatchAdversarySettings",
    "PatchDiscriminatorSettings",
    "PerceptualSettings",
    "PhotoShareSettings",
    "PriorPhase",
    "PriorSettings",
    "ReliabilitySettings",
    "ReplaySettings",
    "RestorerSettings",
    "RestorerTrainingSettings",
    "RestraintSettings",
    "Settings",
    "StartStepsSettings",
    "SwinIRSettings",
    "TargetSettings",
    "Timestep",
    "TrainingSettings",
    "TuningSettings",
    "UNetSettings",
    "VQGANSettings",
    "VerdictSettings",
    "Weight",
]
