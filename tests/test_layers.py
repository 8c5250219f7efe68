"""Who may import whom: the table of docs/architecture.md, held against every import, those inside functions too."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("adapt", "degradations")
EVERYTHING = "*"


def read_table(text: str) -> dict[str, set[str]]:
    """The import table: what each package may import besides itself, by full names.

    A word of the table that is not understood fails, so that no rule is passed over.
    """
    section = text.partition("## Who may import whom")[2]
    rows = re.findall(r"^\| (`.+) \| (.+) \|$", section, flags=re.MULTILINE)
    rules: dict[str, set[str]] = {}
    base: set[str] = set()
    for packages_cell, allowed_cell in rows:
        packages = re.findall(r"`([\w.]+)`", packages_cell)
        allowed: set[str] = set()
        for words in re.split(r", |; | and ", allowed_cell.partition("; never")[0]):
            word = words.strip().strip("`").removeprefix("and ")
            if word.startswith("each other"):
                base = {*packages, "adapt.errors"}
                allowed |= base
            elif word == "base":
                allowed |= base
            elif word == "all of the above":
                allowed |= set(rules)
            elif word == "everything":
                allowed.add(EVERYTHING)
            elif word.startswith("as "):
                allowed |= rules[f"adapt.{word.removeprefix('as ')}"]
            elif word == "degradations":
                allowed.add(word)
            elif re.fullmatch(r"[a-z_.]+", word) and word not in ("nothing", "errors"):
                allowed.add(f"adapt.{word}")
            else:
                assert word.startswith(("nothing", "errors")), f"the import table says {word!r}"
        rules.update(dict.fromkeys(packages, allowed))
    return rules


def module_names(root: Path) -> dict[str, Path]:
    """All modules of the packages, by dotted name."""
    names: dict[str, Path] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imported(module: str, path: Path, known: set[str]) -> Iterator[tuple[str, int]]:
    """Every module of ours that a module imports, with the line."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                origin = ".".join([*above, origin] if origin else above)
            within = [f"{origin}.{alias.name}" for alias in node.names]
            found = [name if name in known else origin for name in within]
        elif isinstance(node, ast.Call) and node.args and ast.unparse(node.func).endswith("import_module"):
            argument = node.args[0]
            found = [argument.value] if isinstance(argument, ast.Constant) else []
        else:
            continue
        for name in found:
            if isinstance(name, str) and name.partition(".")[0] in PACKAGES:
                yield name, node.lineno


def owner(module: str, rules: dict[str, set[str]]) -> str | None:
    """The package of the table that a module belongs to."""
    if module in PACKAGES:
        return module if module in rules else None
    return next((name for name in rules if name != "adapt" and f"{module}.".startswith(f"{name}.")), None)


def violations(root: Path, rules: dict[str, set[str]]) -> list[str]:
    """Every import that the table does not allow, and every module that it does not name."""
    modules = module_names(root)
    problems: list[str] = []
    for module, path in modules.items():
        room = owner(module, rules)
        if room is None:
            problems.append(f"{module}: the import table does not name it")
            continue
        allowed = rules[room]
        for name, line in imported(module, path, set(modules)):
            other = owner(name, rules)
            fine = other == room or any(f"{name}.".startswith(f"{each}.") for each in allowed)
            if not fine and EVERYTHING not in allowed:
                problems.append(f"{module}:{line}: may not import {name}")
    return problems


@pytest.fixture(scope="module")
def rules() -> dict[str, set[str]]:
    return read_table((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))


def test_the_table_is_understood(rules: dict[str, set[str]]) -> None:
    assert rules["degradations"] == set()
    assert rules["adapt.errors"] == set()
    assert rules["adapt.cli"] == {EVERYTHING}
    assert {"adapt.targets.store", "adapt.photos", "adapt.settings", "degradations"} <= rules["adapt.finetuning"]
    assert "adapt.diffusion" in rules["adapt.pretraining"] - rules["adapt.finetuning"]
    assert not {"adapt.targets", "adapt.diffusion", "adapt.guidance"} & rules["adapt.finetuning"]
    assert not {"adapt.finetuning"} & (rules["adapt.training"] | rules["adapt.pretraining"])
    assert "adapt.pretraining" not in rules["adapt.finetuning"]
    assert not {"adapt.commands", "adapt.cli", EVERYTHING} & rules["adapt.loading"]


def test_only_ground_stones_stand_at_the_top() -> None:
    loose = {path.name for path in (ROOT / "adapt").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert len(loose) <= 12, sorted(loose)


def test_every_command_has_a_module_of_its_name() -> None:
    from adapt.cli import COMMANDS

    modules = {path.stem for path in (ROOT / "adapt" / "commands").glob("*.py")}
    assert {name.replace("-", "_") for name in COMMANDS} <= modules


def test_no_import_leaves_its_layer(rules: dict[str, set[str]]) -> None:
    assert violations(ROOT, rules) == []


PLANTED = {
    "at the top": ("adapt/errors.py", "import adapt.images\n", "adapt.errors:1: may not import adapt.images"),
    "inside a function": (
        "adapt/finetuning/loop.py",
        "def go():\n    from adapt.diffusion.prior import Prior\n",
        "adapt.finetuning.loop:2: may not import adapt.diffusion.prior",
    ),
    "of a package's module": (
        "adapt/finetuning/loop.py",
        "from adapt.targets import generate\n",
        "adapt.finetuning.loop:1: may not import adapt.targets.generate",
    ),
    "relative": (
        "adapt/exporting/bundle.py",
        "from ..targets.generate import make\n",
        "adapt.exporting.bundle:1: may not import adapt.targets.generate",
    ),
    "by name": (
        "degradations/chain.py",
        "import importlib\nimportlib.import_module('adapt.images')\n",
        "degradations.chain:2: may not import adapt.images",
    ),
    "of the whole": ("adapt/images.py", "import adapt\n", "adapt.images:1: may not import adapt"),
    "an unnamed module": ("adapt/helpers.py", "", "adapt.helpers: the import table does not name it"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_violation_is_found(planted: str, tmp_path: Path, rules: dict[str, set[str]]) -> None:
    where, text, expected = PLANTED[planted]
    for each in (where, "adapt/targets/generate.py"):
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).touch()
    (tmp_path / where).write_text(text, encoding="utf-8")
    assert violations(tmp_path, rules) == [expected]


def test_what_the_table_allows_is_let_through(tmp_path: Path, rules: dict[str, set[str]]) -> None:
    room = tmp_path / "adapt" / "finetuning"
    room.mkdir(parents=True)
    (room / "loop.py").write_text(
        "import torch\nimport adapt.settings\nfrom adapt.targets.store import read\nfrom .data import l1\n",
        encoding="utf-8",
    )
    assert violations(tmp_path, rules) == []


def test_an_unknown_word_in_the_table_fails() -> None:
    with pytest.raises(AssertionError, match="Whatever it likes"):
        read_table("## Who may import whom\n| `adapt.x` | Whatever it likes |\n")
