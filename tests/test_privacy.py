"""Nothing of what is done with photographs is sent, or kept to be sent: no command leaves a file in the user's home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HOMES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "ORT_DISABLE_TELEMETRY")


def files_left_at_home(home: Path, *command: object) -> list[Path]:
    """What a Python program leaves in a home that was empty."""
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in HOMES} | {"HOME": str(home)}
    asked = [sys.executable, *map(str, command)]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [path for path in home.rglob("*") if not path.is_dir()]


@pytest.mark.skipif(sys.platform == "win32", reason="its home is no folder that a variable names")
def test_no_command_leaves_a_file_at_home(small_photos: Path, small_pack: Path, tmp_path: Path):
    """An export, a bundle that is restored with, and its runner alone."""
    bundle = tmp_path / "bundle"
    assert files_left_at_home(tmp_path / "home", "-m", "adapt", "export", small_pack, "-o", bundle) == []
    restore = ["-m", "adapt", "restore", bundle, small_photos, "-o", tmp_path / "restored"]
    assert files_left_at_home(tmp_path / "second home", *restore) == []
    runner = [bundle / "run_model.py", small_photos, tmp_path / "restored alone"]
    assert files_left_at_home(tmp_path / "third home", *runner) == []


@pytest.mark.skipif(sys.platform == "win32", reason="its home is no folder that a variable names")
def test_whoever_imports_onnxruntime_behind_us_leaves_no_file_at_home(tmp_path: Path):
    assert files_left_at_home(tmp_path / "home", "-c", "import adapt, onnxruntime") == []
