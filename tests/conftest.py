"""What every test shares: one torch thread, the reference fixtures, a seeded generator."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

# Threads are counted when the libraries load, so this stands above every import of numpy and torch.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import pytest  # noqa: E402
import torch  # noqa: E402
from reference import Reference  # noqa: E402

if TYPE_CHECKING:
    from adapt.restorers.codeformer import CodeFormer

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared beside the repository, with faces, degraded photographs and reference fixtures.

    Without it the test is skipped; where CI is set and ADAPT_REQUIRE_SHARED=1, it fails.
    """
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        sentence = "../shared is absent: this test needs the faces or reference fixtures that lie beside the repository"
        if os.environ.get("CI") and os.environ.get("ADAPT_REQUIRE_SHARED") == "1":
            pytest.fail(sentence)
        pytest.skip(sentence)
    return folder


@pytest.fixture(scope="session")
def reference(shared: Path) -> Reference:
    """The reference fixtures: `.json(name)`, `.arrays(name)`, `.manifest(name)` and the module `.fill`."""
    return Reference(shared / "reference")


@pytest.fixture(scope="session")
def public_codeformer(reference: Reference) -> CodeFormer:
    """The public CodeFormer of full size, filled with the reference's weights; only to be looked at."""
    from adapt.restorers.codeformer import CodeFormer
    from adapt.settings import CodeFormerSettings

    return reference.fill.load(CodeFormer(CodeFormerSettings()).eval()).requires_grad_(False)


@pytest.fixture
def gen() -> torch.Generator:
    """A seeded generator of the test's own."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training runs in bfloat16, as it does on a GPU: what has no such arithmetic, or mixes both, fails here too."""
    monkeypatch.setattr("adapt.devices.trains_in_half", lambda device: True)


@pytest.fixture(scope="session")
def small_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of untrained networks at 16 px: every path runs in seconds, no image is good."""
    from adapt.diffusion.unet import UNet
    from adapt.packs.pack import add_network
    from adapt.perceptual.network import PerceptualNetwork
    from adapt.pretraining.prior import initialise as initialise_prior
    from adapt.pretraining.restorer import initialise as initialise_restorer
    from adapt.restorers.swinir import SwinIR
    from adapt.settings import SwinIRSettings, UNetSettings

    folder = tmp_path_factory.mktemp("packs") / "small"
    folder.mkdir()
    (folder / "pack.yaml").write_text(
        "name: small\nsize: 16\ndescription: untrained, for tests\nrestorer: swinir\nnetworks: {}\n"
    )
    unet = UNetSettings(
        image_size=16, model_channels=32, channel_mult=[1, 2], num_res_blocks=[0, 1], attention_resolutions=[]
    )
    swinir = SwinIRSettings(
        img_size=4, embed_dim=12, depths=[2], num_heads=[2], window_size=4, sf=4, num_feat=8, unshuffle=True,
        unshuffle_scale=4,
    )
    prior, restorer = UNet(unet), SwinIR(swinir)
    initialise_prior(prior, 0)
    initialise_restorer(restorer, 0)
    perceptual = PerceptualNetwork([8, 8])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in perceptual.parameters():
            parameter.normal_(std=0.3, generator=generator)
    about = {"licence": "none", "source": "a test", "trained": "not at all"}
    for name, network, architecture, settings in (
        ("prior", prior, "unet", unet.model_dump_json()),
        ("swinir", restorer, "swinir", swinir.model_dump_json()),
        ("perceptual", perceptual, "perceptual", '{"channels": [8, 8]}'),
    ):
        header = {"architecture": architecture, "settings": settings}
        entry = {"architecture": architecture, **about}
        add_network(folder, name, network.state_dict(), header=header, entry=entry)
    return folder


@pytest.fixture(scope="session")
def dynamic_pack(small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small pack with a prior that listens, a blur estimator, a start-step table and a guidance adjuster."""
    import shutil

    from networks import lively_blur_parts, lively_prior

    from adapt.packs.pack import add_network, add_table

    folder = tmp_path_factory.mktemp("dynamic") / "small"
    shutil.copytree(small_pack, folder)
    prior, parts = lively_prior(), lively_blur_parts()
    assert parts.estimator is not None
    assert parts.adjuster is not None
    assert parts.start_steps is not None
    about = {"licence": "none", "source": "a test", "trained": "not at all"}
    for name, architecture, network, settings in (
        ("prior", "unet", prior.network, prior.settings),
        ("blur-estimator", "blur-estimator", parts.estimator.network, parts.estimator.network.settings),
        ("guidance-adjuster", "guidance-adjuster", parts.adjuster, parts.adjuster.settings),
    ):
        header = {"architecture": architecture, "settings": settings.model_dump_json()}
        entry = {"architecture": architecture, **about}
        add_network(folder, name, network.state_dict(), header=header, entry=entry)
    parts.start_steps.save(folder.parent / "table.json")
    add_table(folder, "start-steps", folder.parent / "table.json", entry={"architecture": "start-steps", **about})
    return folder


@pytest.fixture(scope="session")
def small_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six smooth images of 16 px, in two folders, one with a name that is not ASCII."""
    from adapt.exporting.verify import smooth_images
    from adapt.photos.files import write_image

    folder = tmp_path_factory.mktemp("photos")
    names = ("a", "b", "deep/c", "deep/d é 测", "e", "f")
    for name, image in zip(names, smooth_images((6, 16, 16), seed=3), strict=True):
        write_image(folder / f"{name}.png", image)
    return folder

@pytest.fixture(scope="session")
def targets(small_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Targets a restorer can learn: the photos with half the contrast."""
    from adapt.photos.files import read_image, write_image
    from adapt.photos.folder import find_photos

    folder = tmp_path_factory.mktemp("plain-targets")
    for photo in find_photos(small_photos):
        write_image(folder / f"{photo.id}.png", 0.25 + 0.5 * read_image(photo.path))
    return folder
