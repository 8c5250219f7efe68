"""What is computed once and kept serves a training, whoever asked for it first."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from networks import lively_swinir
from torch import Tensor

from adapt.diffusion.schedule import linear_schedule
from adapt.finetuning.data import ImageDataset
from adapt.guidance.low_frequency import low_pass
from adapt.perceptual.swt import swt2
from adapt.photos.files import write_image
from degradations import cosines

ROOT = Path(__file__).resolve().parents[1]
USES: dict[str, Callable[[Tensor], Tensor]] = {
    "low-pass": lambda image: low_pass(image, 4),
    "wavelets": swt2,
    "wavelets of another kind": lambda image: swt2(image, "haar"),
    "blur by cosines": lambda image: cosines.gaussian_blur(image, torch.tensor([1.5, 2.0])),
    "cosines": lambda image: cosines.from_cosines(cosines.to_cosines(image)),
    "schedule": lambda image: image * linear_schedule().abar[:20].to(image),
    "restorer": lambda image: lively_swinir()(image.float()),
}


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_backward_pass_after_a_first_use_in_inference_mode(name: str, dtype: torch.dtype):
    """Sizes that nothing else in the tests has, so that this use is the first."""
    linear_schedule.cache_clear()
    use = USES[name]
    with torch.inference_mode():
        seen = use(torch.rand(2, 3, 12, 20, dtype=dtype))
    assert seen.is_inference()
    image = torch.rand(2, 3, 12, 20, dtype=dtype, requires_grad=True)
    use(image).square().sum().backward()
    assert image.grad is not None
    assert bool(image.grad.isfinite().all())


def test_images_that_were_read_in_inference_mode_are_trained_on(tmp_path: Path):
    write_image(tmp_path / "a.png", torch.rand(3, 8, 8))
    images = ImageDataset([tmp_path / "a.png"], 8)
    with torch.inference_mode():
        images.batch([0])
    weight = torch.ones(1, requires_grad=True)
    (images.batch([0]) * weight).sum().backward()
    assert weight.grad is not None


def test_no_other_cache_holds_tensors():
    """Functions that are cached and return tensors are cached by `degradations.constants.kept`."""
    found: list[str] = []
    for path in [*(ROOT / "adapt").rglob("*.py"), *(ROOT / "degradations").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or node.returns is None:
                continue
            cached = any("cache" in ast.unparse(decorator) for decorator in node.decorator_list)
            if cached and any(word in ast.unparse(node.returns) for word in ("Tensor", "Callable", "Module")):
                found.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert found == []
