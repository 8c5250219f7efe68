"""What every test shares: one torch thread, the reference fixtures, a seeded generator."""

from __future__ import annotations

import os
from pathlib import Path

# Threads are counted when the libraries load, so this stands above every import of numpy and torch.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import pytest  # noqa: E402
import torch  # noqa: E402
from reference import Reference  # noqa: E402

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


@pytest.fixture
def gen() -> torch.Generator:
    """A seeded generator of the test's own."""
    return torch.Generator().manual_seed(0)
