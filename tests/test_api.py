"""What a notebook uses: names that load on first use, and files in the public layout."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reference import Reference

import adapt
from adapt.diffusion.unet import UNet
from adapt.errors import PhotoError, UsageError, WeightsError
from adapt.settings import UNetSettings


def test_import_is_cheap():
    code = "import adapt, sys; assert 'torch' not in sys.modules; assert adapt.load_prior"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'lod_prior'"):
        adapt.lod_prior  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_every_public_function_is_there_and_typed():
    """Each is imported from where a type checker sees it, and says what every argument and its result are."""
    seen_by_checkers = {
        alias.name: node.module
        for node in ast.trajectory(ast.parse(Path(adapt.__file__).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adapt.")
        for alias in node.names
    }
    assert set(adapt.__all__) == set(seen_by_checkers)
    assert set(adapt.__all__) <= set(dir(adapt))
    for name in adapt.__all__:
        function = getattr(adapt, name)
        assert (function.__name__, function.__module__) == (name, seen_by_checkers[name])
        assert function.__doc__
        signature = inspect.signature(function)
        annotations = [parameter.annotation for parameter in signature.parameters.values()]
        assert inspect.Signature.empty not in [*annotations, signature.return_annotation], name


def test_every_public_function_takes_paths_as_text_too():
    for name in adapt.__all__:
        for parameter in inspect.signature(getattr(adapt, name)).parameters.values():
            if "Path" in parameter.annotation:
                assert "str | Path" in parameter.annotation, f"{name}({parameter.name})"


def test_the_way_from_photos_to_numbers_with_text_for_every_path(small_photos: Path, small_pack: Path, tmp_path: Path):
    """Each function converts what it is given; a notebook has text."""
    photos, pack, out = str(small_photos), str(small_pack), str(tmp_path)
    assert adapt.degrade(photos, f"{out}/damaged", recipe="blind").done == 6
    steps = ["steps=2", "gate.max_low_frequency_change=9", "gate.min_contrast=0"]
    summary = adapt.generate_targets(
        photos, f"{out}/targets", pack=pack, restorer=pack, method="low-frequency", overrides=steps
    )
    assert summary.count("done") == 6
    adapt.finetune(
        photos, f"{out}/targets", f"{out}/run", pack=pack, restorer=pack,
        overrides=["steps=1", "batch=2", "holdout=0.34", "adversarial=0"],
    )
    assert adapt.restore(f"{out}/run", photos, f"{out}/restored").done == 6
    evaluation, table = adapt.evaluate(f"{out}/restored", truth=photos, photos=f"{out}/damaged", pack=pack)
    assert {"psnr", "colour_shift"} <= set(evaluation.scores)
    assert table.splitlines()[1].startswith("restored")
    with pytest.raises(UsageError, match="restored: expected a new or empty folder or a bundle"):
        adapt.export(f"{out}/run", f"{out}/restored")
    with pytest.raises(UsageError, match="nothing: no such folder or file of photos"):
        adapt.run(f"{out}/nothing", f"{out}/whole", pack=pack, truth=photos)
    with pytest.raises(UsageError, match=r"profile: expected a name that ends in \.json"):
        adapt.calibrate([photos], f"{out}/profile", plot=f"{out}/plot.png")


def test_a_photo_of_a_notebook(small_photos: Path):
    """By the name that the README gives it, right after the import, and its path as text."""
    code = f"import adapt; print(adapt.read_photo({str(small_photos / 'a.png')!r}, at_least=16).image.shape)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed == "torch.Size([3, 16, 16])\n"
    with pytest.raises(PhotoError, match=r"nothing\.png: no such file"):
        adapt.read_photo("nothing.png")


def test_no_room_hides_a_public_function():
    """Importing the room `adapt.export` would put the module in the place of the function `adapt.export`."""
    here = Path(adapt.__file__).parent
    rooms = {path.stem for path in here.glob("*.py")} | {path.parent.name for path in here.glob("*/__init__.py")}
    assert not rooms & set(adapt.__all__)


def test_the_embedded_prior():
    prior = adapt.load_prior("tiny")
    output = prior.network(torch.zeros(1, 3, 128, 128), torch.tensor([500]))
    assert output.shape == (1, 6, 128, 128)


@pytest.mark.parametrize("wrap", [
    lambda s: s,
    lambda s: {f"module.{key}": value for key, value in s.items()},
    lambda s: {"state_dict": s},
    lambda s: {"params_ema": s},
])
def test_a_prior_in_the_public_layout(wrap, tmp_path: Path):
    settings = UNetSettings(
        image_size=32, model_channels=32, channel_mult=[1, 2, 2], num_res_blocks=[1, 1, 1], attention_resolutions=[8]
    )
    network = UNet(settings)
    torch.save(wrap(network.state_dict()), tmp_path / "prior.pth")
    prior = adapt.load_prior(tmp_path / "prior.pth")
    assert prior.settings == settings
    assert torch.equal(prior.network.state_dict()["out.2.weight"], network.state_dict()["out.2.weight"])


def test_the_public_prior_at_full_size(reference: Reference, tmp_path: Path):
    """159.8 M parameters, as the loaders of the field save them: every name and shape fits."""
    manifest = reference.manifest("unet_iddpm_ffhq512")
    state = {f"module.{key}": torch.zeros(shape) for key, shape in manifest["tensors"].items()}
    torch.save(state, tmp_path / "iddpm_ffhq512_ema500000.pth")
    prior = adapt.load_prior(tmp_path / "iddpm_ffhq512_ema500000.pth")
    assert prior.size == 512
    assert sum(p.numel() for p in prior.network.parameters()) == manifest["n_params"]
    del state["module.out.2.bias"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(WeightsError, match=r"1 missing \(out\.2\.bias\)"):
        adapt.load_prior(tmp_path / "less.pth")
