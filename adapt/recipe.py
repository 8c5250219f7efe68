"""Recipes: YAML files read into the checked, frozen settings of `adapt.settings`.

All problems of a recipe are reported at once, each where it stands in the file. The YAML is that of the 1.2 core
schema: `1e-4` is a number, `no`, `off`, `on` and `yes` are words, which a boolean setting still understands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from adapt.digests import settings_digest
from adapt.errors import RecipeError
from adapt.settings import (
    FinetuneSettings,
    PerceptualSettings,
    PriorSettings,
    RestorerSettings,
    Settings,
    TargetSettings,
)

S = TypeVar("S", bound=Settings)

KINDS: Final[dict[str, type[Settings]]] = {
    "targets": TargetSettings,
    "finetune": FinetuneSettings,
    "pretrain-prior": PriorSettings,
    "pretrain-restorer": RestorerSettings,
    "pretrain-perceptual": PerceptualSettings,
}


@dataclass(frozen=True, slots=True)
class RecipeInfo:
    """A recipe that ships with the package.

    Attributes:
        name: unique, `[PACK/]FOLDER/NAME`; `load_recipe` and `recipe_text` take it.
        kind: the key of its schema in `KINDS`.
        path: the file.
        description: the first comment line of the file.
    """

    name: str
    kind: str
    path: Path
    description: str


# ---------------------------------------------------------------- finding


def recipes_folder() -> Path:
    """The folder of the recipes that ship: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "recipes_data"
    return installed if installed.is_dir() else package.parent / "recipes"


def folder_of(kind: str) -> str:
    """The folder that holds recipes of a kind: `targets`, `finetune` or `pretrain`."""
    return kind.partition("-")[0]


def find_recipe(name_or_path: str | Path, folder: str, pack: str | None = None) -> Path:
    """The file of a recipe.

    Args:
        name_or_path: a path (anything that ends in .yaml or .yml), a full name as in `RecipeInfo.name`, or a name
            within `folder`, looked up among the recipes of `pack` first.
        folder: `targets`, `finetune` or `pretrain`.
        pack: name of the pack whose own recipes go first.

    Raises:
        RecipeError: no such recipe; the message names the nearest one, or all there are.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if not path.is_file():
            raise RecipeError(f"{path}: no such recipe file")
        return path
    root = recipes_folder()
    places = [f"{folder}/{text}", text] if pack is None else [f"{pack}/{folder}/{text}", f"{folder}/{text}", text]
    for place in places:
        path = root / f"{place}.yaml"
        if path.is_file():
            return path
    folders = [root / folder] if pack is None else [root / pack / folder, root / folder]
    names = sorted({path.stem for each in folders for path in each.glob("*.yaml")})
    for_pack = "" if pack is None else f" for the pack {pack}"
    hint = _nearest(text, names) or f"; there are: {', '.join(names) or 'none'}, or give a path that ends in .yaml"
    raise RecipeError(f"no {folder} recipe '{text}'{for_pack}{hint}")


def list_recipes(kind: str | None = None) -> list[RecipeInfo]:
    """All recipes that ship, sorted by name; of one kind, or of one folder (`pretrain`), if it is given."""
    root = recipes_folder()
    infos: list[RecipeInfo] = []
    for path in sorted(root.rglob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        description = next((line.lstrip("# ").rstrip() for line in lines if line.startswith("#")), "")
        name = path.relative_to(root).with_suffix("").as_posix()
        infos.append(RecipeInfo(name, kind_of(path), path, description))
    return [info for info in infos if kind in (None, info.kind, folder_of(info.kind))]


def recipe_text(name: str) -> str:
    """The text of a recipe that ships, comments included; by its full name, or by its last part if that is unique.

    Raises:
        RecipeError: no such recipe, or several.
    """
    infos = list_recipes()
    found = [info for info in infos if info.name == name] or [info for info in infos if info.path.stem == name]
    if len(found) == 1:
        return found[0].path.read_text(encoding="utf-8")
    if found:
        raise RecipeError(f"'{name}' names several recipes; say which: {', '.join(info.name for info in found)}")
    names = [info.name for info in infos]
    short = {info.path.stem: info.name for info in infos}
    raise RecipeError(f"no recipe '{name}'{_nearest(name, names + list(short)) or f'; there are: {", ".join(names)}'}")


def kind_of(path: Path) -> str:
    """The kind that a recipe file says it is, a key of `KINDS`.

    Raises:
        RecipeError: unreadable, or no kind, or an unknown one.
    """
    draft = _Draft.read(path)
    kind = draft.values.get("kind")
    if kind not in KINDS:
        problem = "needed: what this is a recipe of" if kind is None else f"no such kind (got {kind!r})"
        hint = _nearest(str(kind), KINDS) or f"; one of {', '.join(KINDS)}"
        raise RecipeError(f"{draft.place(('kind',)).text}: kind: {problem}{hint}")
    return str(kind)


# ---------------------------------------------------------------- reading


def load_recipe(
    name_or_path: str | Path, schema: type[S], overrides: Sequence[str] = (), pack: str | None = None
) -> S:
    """Read a recipe, put the overrides over it, and check the whole.

    Args:
        name_or_path: see `find_recipe`; the folder follows from the schema's `kind`.
        schema: the settings that the recipe describes.
        overrides: `key=value`, with dots for what is nested and numbers for list items
            (`guidance.0.factor=8`); the value is YAML. Later ones win.
        pack: name of the pack whose own recipes go first.

    Raises:
        RecipeError: everything that is wrong, one line each, `FILE:LINE:COLUMN: key: what`, or
            `KEY=VALUE: key: what` where an override is at fault.
    """
    wanted = str(schema.model_fields["kind"].default)
    draft = _Draft.read(find_recipe(name_or_path, folder_of(wanted), pack))
    for override in overrides:
        draft.override(override)
    kind = draft.values.get("kind", wanted)
    if kind != wanted and kind in KINDS:
        raise RecipeError(f"{draft.place(('kind',)).text}: kind: expected a {wanted} recipe (got a {kind} recipe)")
    try:
        settings = schema.model_validate(draft.values)
    except ValidationError as error:
        draft.problems += _explain(error, schema, draft)
    else:
        if not draft.problems:
            return settings
    raise RecipeError("\n".join(f"{problem.place.text}: {problem.text}" for problem in sorted(draft.problems)))


def dump(settings: Settings) -> str:
    """Settings as YAML, defaults included: a recipe that `load_recipe` reads back as the same settings."""
    return yaml.dump(
        settings.model_dump(mode="json"),
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=110,
    )


def recipe_digest(settings: Settings) -> str:
    """sha256 of resolved settings: of what they say, not of how the file was written."""
    return settings_digest(settings.model_dump(mode="json"))


# ---------------------------------------------------------------- YAML with places

Keys = tuple[str | int, ...]
_TAG = "tag:yaml.org,2002:"
_CORE = {  # YAML 1.2, section 10.3.2
    "null": re.compile(r"(?:~|null|Null|NULL|)\Z"),
    "bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    "int": re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"),
    "float": re.compile(r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|nan))\Z", re.I),
}
_RESOLVERS = [(_TAG + name, pattern) for name, pattern in _CORE.items()]


class _Loader(yaml.SafeLoader):
    """Composes nodes with the tags of the YAML 1.2 core schema."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {None: _RESOLVERS}


class _Dumper(yaml.SafeDumper):
    """Quotes every word that YAML 1.1 or 1.2 would take for something else."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {**yaml.SafeDumper.yaml_implicit_resolvers, None: _RESOLVERS}


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """Where something is written; sorts files before overrides, and those in their order."""

    order: int
    line: int
    column: int
    text: str


@dataclass(frozen=True, slots=True, order=True)
class _Problem:
    place: _Place
    text: str


@dataclass(slots=True)
class _Draft:
    """The values of a recipe before they are checked, with the place of each."""

    file: str
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    places: dict[Keys, _Place] = field(default_factory=dict[Keys, _Place])
    problems: list[_Problem] = field(default_factory=list[_Problem])
    overrides: int = 0

    @classmethod
    def read(cls, path: Path) -> _Draft:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path}: expected UTF-8 text, got byte {error.start + 1} of another kind") from error
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
        draft = cls(str(path))
        node = _compose(text, str(path))
        draft.places[()] = _Place(0, 1, 1, f"{path}:1:1")
        if not isinstance(node, yaml.MappingNode):
            raise RecipeError(f"{path}:1:1: expected `key: value` lines, got {_kind_of_node(node)}")
        draft.values = draft.take(node, (), None, ())
        return draft

    def place(self, keys: Keys) -> _Place:
        """The place of a value, or of the nearest thing around it that is written down."""
        while keys not in self.places:
            keys = keys[:-1]
        return self.places[keys]

    def take(self, node: yaml.Node, keys: Keys, place: _Place | None, around: tuple[yaml.Node, ...]) -> Any:
        """The value of a node; places go to `place`, or where it is None to the node's own."""
        if any(node is outer for outer in around):
            self.problems.append(_Problem(self.place(keys), f"{_dotted(keys)}: an alias inside its own anchor"))
            return None
        inside = (*around, node)
        if isinstance(node, yaml.MappingNode):
            values: dict[str, Any] = {}
            for key_node, value_node in node.value:
                here = place or self._mark(key_node)
                if not isinstance(key_node, yaml.ScalarNode):
                    self.problems.append(_Problem(here, f"{_dotted(keys)}: a key has to be a word"))
                    continue
                key = str(key_node.value)
                if key in values:
                    first = self.places[*keys, key].line
                    self.problems.append(_Problem(here, f"{_dotted((*keys, key))}: given twice, first on line {first}"))
                    continue
                self.places[*keys, key] = here
                values[key] = self.take(value_node, (*keys, key), place, inside)
            return values
        if isinstance(node, yaml.SequenceNode):
            items: list[Any] = []
            for index, item in enumerate(node.value):
                self.places[*keys, index] = place or self._mark(item)
                items.append(self.take(item, (*keys, index), place, inside))
            return items
        return self._scalar(node, keys)

    def _scalar(self, node: yaml.Node, keys: Keys) -> Any:
        text = str(node.value)
        match node.tag.removeprefix(_TAG):
            case "null":
                return None
            case "int":
                return int(text, 0 if text[:2] in ("0x", "0o") else 10)
            case "float":
                return float(text.replace(".inf", "inf").replace(".nan", "nan")) if text else None
            case "bool" | "str":
                # A boolean travels as a word: only then is `steps: true` not taken for 1.
                return text
            case _:
                self.problems.append(_Problem(self.place(keys), f"{_dotted(keys)}: recipes have no tags ({node.tag})"))
                return text

    def _mark(self, node: yaml.Node) -> _Place:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        return _Place(0, line, column, f"{self.file}:{line}:{column}")

    def override(self, text: str) -> None:
        """Put the value of `key=value` in its place."""
        self.overrides += 1
        place = _Place(self.overrides, 0, 0, text)
        dotted, equals, value = text.partition("=")
        names = dotted.strip().split(".")
        if not equals or not all(names):
            self.problems.append(_Problem(place, "an override is written key=value, as in steps=20"))
            return
        try:
            node = _compose(value, "value")
        except RecipeError as error:
            self.problems.append(_Problem(place, f"{dotted}: {error}"))
            return
        target: Any = self.values
        keys: Keys = ()
        for depth, name in enumerate(names):
            key: str | int = name
            if isinstance(target, list):
                length = len(target)  # pyright: ignore[reportUnknownArgumentType]
                if not name.isdecimal() or int(name) >= length:
                    there = f"items 0 to {length - 1}" if length else "no items"
                    self.problems.append(_Problem(place, f"{_dotted(keys)}: has {there} (got {name!r})"))
                    return
                key = int(name)
            elif not isinstance(target, dict):
                self.problems.append(_Problem(place, f"{_dotted(keys)}: has no settings of its own (got {name!r})"))
                return
            keys = (*keys, key)
            if depth == len(names) - 1:
                for old in [old for old in self.places if old[: len(keys)] == keys]:
                    del self.places[old]
                self.places[keys] = place
                target[key] = None if node is None else self.take(node, keys, place, ())
            elif isinstance(target, dict):
                self.places.setdefault(keys, place)
                target = target.setdefault(key, {})  # pyright: ignore[reportUnknownMemberType]
            else:
                target = target[key]


def _compose(text: str, file: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise RecipeError(f"{where}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{file}: not YAML: {str(error).splitlines()[0]}") from error


def _kind_of_node(node: yaml.Node | None) -> str:
    return "an empty file" if node is None else "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


# ---------------------------------------------------------------- explaining


def _explain(error: ValidationError, schema: type[BaseModel], draft: _Draft) -> Iterator[_Problem]:
    """One line per error of pydantic, in the words of a recipe."""
    for detail in error.errors(include_url=False):
        keys, model = _locate(detail["loc"], schema, draft.values)
        context = detail.get("ctx", {})
        got = f" (got {_shown(detail['input'])})"
        match detail["type"]:
            case "extra_forbidden":
                names = list(model.model_fields)
                what = "not a key of this recipe" if len(keys) == 1 else f"not a setting of {_dotted(keys[:-1])}"
                text = f"{what}{got}{_nearest(str(keys[-1]), names) or f'; there are: {", ".join(names)}'}"
            case "missing":
                about = model.model_fields[str(keys[-1])].description
                text = "needed, and has no default" + (f" ({about})" if about else "")
            case "literal_error" | "union_tag_invalid":
                expected = str(context.get("expected", context.get("expected_tags", "")))
                value = context.get("tag", detail["input"])
                hint = _nearest(str(value), re.findall(r"'([^']*)'", expected))
                text = f"should be {expected} (got {_shown(value)}){hint}"
            case "value_error":
                text = str(context["error"])
            case _:
                text = detail["msg"].replace("Input should", "should") + got
        yield _Problem(draft.place(keys), f"{_dotted(keys)}: {text}" if keys else text)


def _locate(loc: Sequence[str | int], schema: type[BaseModel], values: Any) -> tuple[Keys, type[BaseModel]]:
    """The keys of an error as the recipe has them, and the settings that hold the last one.

    pydantic puts the tag of a chosen union member among the keys; it is no key of the recipe.
    """
    keys: Keys = ()
    annotation: Any = schema
    model = schema
    for step in loc:
        members = _models(annotation)
        tagged = [each for each in members if len(members) > 1 and _has_tag(each, step)]
        if tagged:
            annotation = model = tagged[0]
            continue
        if isinstance(step, int):
            annotation = (get_args(annotation) or (None,))[0]
        elif members:
            model = members[0]
            annotation = model.model_fields[step].annotation if step in model.model_fields else None
        keys = (*keys, step)
    return keys, model


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The settings that an annotation names: itself, or the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (list, tuple, dict, Literal):
        return []
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _has_tag(model: type[BaseModel], tag: str | int) -> bool:
    return any(tag in get_args(each.annotation) for each in model.model_fields.values())


def _dotted(keys: Keys) -> str:
    return ".".join(str(key) for key in keys)


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _nearest(name: str, names: Sequence[str] | dict[str, Any]) -> str:
    near = get_close_matches(name, list(names), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
