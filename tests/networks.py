"""Networks for tests: small, and with weights under which every part of them shows."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from adapt.blur.adjuster import GuidanceAdjuster
from adapt.blur.estimator import BlurEstimator, BlurNetwork
from adapt.blur.parts import BlurParts
from adapt.blur.start_steps import StartSteps
from adapt.diffusion.prior import Prior
from adapt.diffusion.unet import UNet
from adapt.pretraining.prior import initialise
from adapt.restorers.codeformer import CodeFormer
from adapt.restorers.swinir import SwinIR
from adapt.restorers.vqgan import VQGAN
from adapt.settings import (
    AdjusterNetworkSettings,
    BlurNetworkSettings,
    CodeFormerSettings,
    SwinIRSettings,
    UNetSettings,
    VQGANSettings,
)
from adapt.training.context import Progress, TrainingContext
from adapt.training.run import Run

CPU = torch.device("cpu")


def on_cpu(run: Run, on_step: Progress | None = None, max_steps: int | None = None) -> TrainingContext:
    """A training in an open run, on the CPU."""
    return TrainingContext(run=run, device=CPU, on_step=on_step, max_steps=max_steps)


@contextmanager
def gradient_norms() -> Generator[list[float]]:
    """Collects the norm of all gradients that an optimizer takes a step by, step by step."""
    norms: list[float] = []

    def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
        gradients = [each.grad for group in optimizer.param_groups for each in group["params"] if each.grad is not None]
        norms.append(float(torch.cat([each.flatten() for each in gradients]).norm()))

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield norms
    finally:
        handle.remove()


NetworkT = TypeVar("NetworkT", bound=nn.Module)

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


SMALL_CODEFORMER = CodeFormerSettings(
    img_size=16, nf=32, ch_mult=[1, 2, 1], res_blocks=1, attn_resolutions=[4], emb_dim=8, codebook_size=12,
    dim_embd=64, n_head=1, n_layers=2, connect_list=[8, 16],
)


def lively_codeformer(settings: CodeFormerSettings = SMALL_CODEFORMER, seed: int = 0) -> CodeFormer:
    """Weights under which codes differ from place to place, and fusion shows."""
    return _lively(CodeFormer(settings), seed)


def lively_vqgan(settings: VQGANSettings = SMALL_CODEFORMER, seed: int = 0) -> VQGAN:
    """The same for the codebook alone."""
    return _lively(VQGAN(settings), seed)


def _lively(network: NetworkT, seed: int) -> NetworkT:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            fan_in = math.prod(parameter.shape[1:]) if parameter.ndim > 1 else 25
            kept = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            std = 0.5 if name.endswith(("embedding.weight", "position_emb")) else 1 / math.sqrt(fan_in)
            parameter.normal_(std=std, generator=generator).add_(kept)
    return network.eval()


SMALL = 16  # px: the size of the prior and of what belongs to it


def lively_prior() -> Prior:
    """A prior that listens: its last layer does not start at zero, where x0 follows x_t blindly."""
    settings = UNetSettings(
        image_size=SMALL, model_channels=32, channel_mult=[1, 2], num_res_blocks=[0, 1], attention_resolutions=[]
    )
    network = UNet(settings)
    initialise(network, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.out.parameters():
            parameter.normal_(std=0.05, generator=generator)
    return Prior("small", settings, network.eval().requires_grad_(False))


def lively_blur_parts() -> BlurParts:
    """An estimator whose std depends on the photo, a table, and an adjuster whose map is not flat."""
    swinir = SwinIRSettings(img_size=SMALL, embed_dim=8, depths=[1], num_heads=[2], window_size=4, sf=1, num_feat=8,
                            upsampler="")
    network = BlurNetwork(BlurNetworkSettings(size=SMALL, transfer=swinir, channels=[4, 4, 4]))
    adjuster = GuidanceAdjuster(AdjusterNetworkSettings(features=4, model_channels=32))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in (network, adjuster):
            for parameter in part.parameters():
                parameter.normal_(std=0.3, generator=generator)
        network.deviation.head[-1].weight.mul_(20)  # pyright: ignore[reportArgumentType, reportCallIssue]
        network.deviation.head[-1].bias.fill_(8.0)  # pyright: ignore[reportArgumentType, reportCallIssue]
    table = StartSteps(
        size=SMALL, statistic="share", share=0.95, tol=1e-3, images=1, spectrum=[1.0],
        stds=[0.01, 0.2, 0.47], steps=[300, 600, 900],
    )
    return BlurParts(
        estimator=BlurEstimator("small", network.eval().requires_grad_(False)), start_steps=table,
        adjuster=adjuster.eval().requires_grad_(False),
    )
