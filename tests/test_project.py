"""What holds for the project as a whole: how fast it answers, what is tracked, who prints, what is installed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
import tomllib
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 2**20


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the repository, with the packages of this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """The files that git tracks; what is on the disk where there is no git, as in an unpacked sdist."""
    if not (ROOT / ".git").exists():
        pytest.skip("there is no git repository here: what is tracked cannot be told")
    answer = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in answer.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


HEAVY = ("torch", "torchvision", "accelerate", "lpips", "skimage", "scipy", "onnx", "onnxruntime", "matplotlib")


@pytest.mark.parametrize("module", ["adapt", "adapt.cli", "adapt.settings.recipe"])
def test_nothing_heavy_is_imported_before_it_is_needed(module: str) -> None:
    answer = python("-c", f"import sys, {module}; print(*sorted(set({HEAVY}) & set(sys.modules)))")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == []


def test_help_answers_at_once() -> None:
    """By the clock, or by the time that its process computed, where others kept it waiting."""
    seconds: list[float] = []
    while len(seconds) < 10 and min(seconds, default=1) >= 0.5:  # a machine that is busy is given more tries
        start, before = time.perf_counter(), os.times()
        answer = python("-m", "adapt", "--help")
        waited, after = time.perf_counter() - start, os.times()
        computed = after.children_user + after.children_system - before.children_user - before.children_system
        seconds.append(min(waited, computed or waited))  # Windows does not tell
        assert answer.returncode == 0, answer.stderr
        assert "Usage" in answer.stdout
    assert min(seconds) < 0.5, f"adapt --help took {min(seconds):.2f} s at best"


def test_ci_has_what_other_tests_skip_without() -> None:
    """A user may lack the extras; where they are missing in CI, what reads HEIF and public files would go untested."""
    if os.environ.get("CI"):
        missing = [name for name in ("spandrel", "pi_heif") if find_spec(name) is None]
        assert not missing, f"install requirements-dev.lock: {missing}"


def test_no_tracked_file_is_large(tracked: list[Path]) -> None:
    assert [path for path in tracked if path.stat().st_size > 16 * MEGABYTE] == []


def test_what_ships_fits_a_wheel(tracked: list[Path]) -> None:
    """A wheel is a zip file: what its files take deflated."""
    shipped = [path for path in tracked if path.relative_to(ROOT).parts[0] in ("adapt", "degradations", "recipes")]
    deflated = sum(len(zlib.compress(path.read_bytes(), 1)) for path in shipped)
    assert deflated < 95 * MEGABYTE, "a wheel over 100 MB cannot be published"


def calls(path: Path, name: str) -> list[int]:
    """Lines of a module that call a function by its bare name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return [node.lineno for node in found if ast.unparse(node.func) == name]


def test_only_the_command_line_prints() -> None:
    modules = [path for package in ("adapt", "degradations") for path in (ROOT / package).rglob("*.py")]
    silent = [path for path in modules if path.parent != ROOT / "adapt" / "cli"]
    found = {str(path.relative_to(ROOT)): calls(path, "print") for path in silent}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_a_planted_print_is_found(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def go():\n    'print()'\n    print(1)\n", encoding="utf-8")
    assert calls(path, "print") == [3]


def pins(name: str) -> dict[str, list[str]]:
    """The versions that a lock file holds for each distribution."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)==(\S+)", line)
        if match:
            found.setdefault(normal(match[1]), []).append(match[2])
        else:
            assert line.startswith("#"), f"{name}: {line!r} pins nothing"
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[\[>=<;~ ]", requirement)[0]) for requirement in requirements}


def test_the_locks_hold_all_that_is_declared(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    core, everything = pins("requirements.lock"), pins("requirements-dev.lock")
    assert names(project["project"]["dependencies"]) <= set(core)
    assert names([*extras["dev"], *extras["heif"], *extras["models"]]) <= set(everything)
    assert {name: everything[name] for name in core} == core, "both locks agree"
    locked = {(package["name"], package.get("version")) for package in locked_packages()}
    assert {(name, version) for name, versions in everything.items() for version in versions} <= locked


def locked_packages() -> list[dict[str, Any]]:
    return tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]


def test_dependencies_have_floors_and_no_ceilings(project: dict[str, Any]) -> None:
    for requirement in project["project"]["dependencies"]:
        assert re.fullmatch(r"[A-Za-z0-9-]+>=[0-9.]+", requirement), requirement


def test_tracked_text_names_no_folder_of_one_machine(tracked: list[Path]) -> None:
    homes = re.compile(r"(?<![\w./])/(?:work|root|home|Users|opt|mnt)/\w")
    kinds = {".py", ".md", ".toml", ".yaml", ".yml", ".lock", ".json", ".jsonl", ".txt", ""}
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked
        if path.suffix in kinds and path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if homes.search(line)
    ]
    assert found == []
