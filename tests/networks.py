"""Networks for tests: small, and with weights under which every part of them shows."""

from __future__ import annotations

import math

import torch

from adapt.restorers.swinir import SwinIR
from adapt.settings import SwinIRSettings

SMALL_SWINIR = SwinIRSettings(
    img_size=8, embed_dim=12, depths=[2], num_heads=[2], window_size=4, sf=4, num_feat=8, unshuffle=True,
    unshuffle_scale=4,
)


def lively_swinir(settings: SwinIRSettings = SMALL_SWINIR, seed: int = 0) -> SwinIR:
    """Weights of the size of trained ones: under the small ones that training starts from, attention without its
    mask differs by 4e-5, and a wrong network passes for a right one."""
    generator = torch.Generator().manual_seed(seed)
    network = SwinIR(settings)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            table = name.endswith("relative_position_bias_table")
            fan_in = 1 if table else math.prod(parameter.shape[1:])
            std = 1 / math.sqrt(fan_in) if parameter.ndim > 1 else 0.2
            kept = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.normal_(std=std, generator=generator).add_(kept)
    return network.eval()
