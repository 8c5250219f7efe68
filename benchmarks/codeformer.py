"""CodeFormer and its VQGAN of full size against every number of the reference fixtures, gradients included, and a file
in the public layout from loading to a checked ONNX bundle.

Tests hold a part of it; the whole takes some minutes on one core.
Run: python benchmarks/codeformer.py [../shared/reference [export]]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from reference import Reference  # noqa: E402  # pyright: ignore[reportMissingImports]

from adapt.exporting.bundle import export_bundle, load_bundle  # noqa: E402
from adapt.finetuning.codes import code_objective  # noqa: E402
from adapt.loading import load_restorer  # noqa: E402
from adapt.restorers.codeformer import CodeFormer  # noqa: E402
from adapt.restorers.vqgan import VQGAN  # noqa: E402
from adapt.settings import CodeFinetuneSettings, CodeFormerSettings, VQGANSettings  # noqa: E402
from adapt.training.losses import l1  # noqa: E402


def show(name: str, found: Tensor | np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Print the largest difference beside its tolerance."""
    apart = float(np.abs(np.asarray(found, dtype=np.float64) - expected).max())
    print(f"{name:40} {apart:.1e}  (tolerance {tolerance:.0e}){'' if apart <= tolerance else '  TOO FAR'}", flush=True)


def strided(image: Tensor) -> np.ndarray:
    """An image in [0, 1] as the fixtures keep it: in [-1, 1], every fourth pixel."""
    return (image.detach() * 2 - 1)[..., ::4, ::4].numpy()


def images(reference: Reference) -> None:
    """The VQGAN's image, and the four of CodeFormer."""
    arrays = reference.arrays("vqgan_512")
    vqgan = reference.fill.load(VQGAN(VQGANSettings()).eval())
    made = vqgan(torch.from_numpy(reference.fill.smooth("vqgan_512.x", [1, 3, 512, 512])))
    show("vqgan image", strided(made.image), arrays["out"], 5e-5)
    show("vqgan codes", made.codes, arrays["indices"], 0)
    network = reference.fill.load(CodeFormer(CodeFormerSettings()).eval())
    arrays = reference.arrays("codeformer_512")
    reading = network.read(torch.from_numpy(reference.fill.smooth("codeformer_512.x", [1, 3, 512, 512])))
    for fidelity, adain in ((0.0, False), (0.5, False), (1.0, False), (0.5, True)):
        network.settings = CodeFormerSettings(adain=adain)
        expected = arrays[f"out_w{fidelity:g}_adain{adain:d}"]
        show(f"w {fidelity:g}, adain {adain}", strided(network.generate(reading, fidelity)), expected, 1e-4)


def losses(reference: Reference) -> None:
    """One step of fine-tuning: the teacher's codes, the losses and the gradients."""
    name = "codeformer_finetune_losses"
    arrays, about = reference.arrays(name), reference.json(name)
    network, teacher = (reference.fill.load(CodeFormer(CodeFormerSettings()).eval()) for _ in range(2))
    objective = code_objective(
        CodeFinetuneSettings(steps=1), network, teacher=teacher.requires_grad_(False), distance=l1
    )
    photos, targets = (
        torch.from_numpy(reference.fill.smooth(f"{name}.{kind}", [2, 3, 512, 512])) for kind in ("lq", "gt")
    )
    show("target codes", teacher.codes(targets), arrays["idx_gt"], 0)
    total, parts = objective.losses(objective.module().train()(photos), targets, None)
    found = [parts["feature"].mean().item(), 0.5 * parts["token"].mean().item(), total.item()]
    show("losses", np.array(found), arrays["losses"], 1e-5)
    total.backward()
    norms: list[float] = []
    for key in about["grad_norm_keys"]:
        grad = network.get_parameter(key).grad
        assert grad is not None
        norms.append(grad.norm().item())
    show("gradient norms, relative", np.array(norms) / arrays["grad_norms"], np.ones(len(norms)), 1e-4)


def exported(reference: Reference) -> None:
    """A file as the public one: load it, restore a photo of 512 px, and export it; onnxruntime against PyTorch."""
    arrays = reference.arrays("codeformer_512")
    photo = torch.from_numpy(reference.fill.smooth("codeformer_512.x", [1, 3, 512, 512]))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "codeformer.pth"
        network = reference.fill.load(CodeFormer(CodeFormerSettings()).eval())
        torch.save({"params_ema": network.state_dict()}, file)
        del network
        restorer = load_restorer(file)
        expected = (arrays["out_w0.5_adain1"] / 2 + 0.5).clip(0, 1)
        show("loaded, restored", restorer(photo)[..., ::4, ::4], expected, 1e-4)
        bundle = load_bundle(export_bundle(restorer, Path(folder) / "bundle", source={"weights": file.name}))
        for item in bundle.about["parity"]:
            name = f"ONNX, {item['shape'][0]} photos, fidelity {item['fidelity']:g}, undecided {item['undecided']}"
            show(name, np.array(item["largest"]), np.zeros(()), 1e-3)
        for fidelity in (0.0, 0.5, 1.0):
            show(f"bundle, fidelity {fidelity:g}", bundle(photo, fidelity), restorer(photo, fidelity).numpy(), 1e-3)


def main() -> None:
    """Compare everything."""
    reference = Reference(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "reference")
    if sys.argv[2:] == ["export"]:
        exported(reference)
        return
    with torch.no_grad():
        images(reference)
    losses(reference)
    exported(reference)


if __name__ == "__main__":
    main()
