"""Recipes: YAML files read into the checked, frozen settings of `adapt.settings`.

All problems of a recipe are reported at once, each where it stands in the file, with the nearest name where a name is
unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from adapt.digests import settings_digest
from adapt.errors import RecipeError
from adapt.settings import (
    AdjusterSettings,
    BlurEstimatorSettings,
    CodebookSettings,
    CodeFinetuneSettings,
    CodePredictorSettings,
    ConditionalPriorSettings,
    ConditionerSettings,
    DegradeSettings,
    FinetuneSettings,
    FusionSettings,
    IdentityMaskSettings,
    OneStepTrainingSettings,
    PerceptualSettings,
    PriorSettings,
    RestorerSettings,
    Settings,
    StartStepsSettings,
    TargetSettings,
    VerdictSettings,
)
from adapt.settings.draft import Draft, Keys, Problem, dotted, to_yaml

S = TypeVar("S", bound=Settings)

KINDS: Final[dict[str, type[Settings]]] = {
    "targets": TargetSettings,
    "finetune": FinetuneSettings,
    "finetune-codes": CodeFinetuneSettings,
    "pretrain-prior": PriorSettings,
    "pretrain-restorer": RestorerSettings,
    "pretrain-onestep": OneStepTrainingSettings,
    "pretrain-identity-conditioner": ConditionerSettings,
    "pretrain-conditional-prior": ConditionalPriorSettings,
    "pretrain-identity-mask": IdentityMaskSettings,
    "pretrain-perceptual": PerceptualSettings,
    "pretrain-codebook": CodebookSettings,
    "pretrain-code-predictor": CodePredictorSettings,
    "pretrain-fusion": FusionSettings,
    "pretrain-blur-estimator": BlurEstimatorSettings,
    "pretrain-start-steps": StartStepsSettings,
    "pretrain-guidance-adjuster": AdjusterSettings,
    "degrade": DegradeSettings,
    "verdict": VerdictSettings,
}
SIZED: Final[dict[int, str]] = {  # side of a pack's faces in pixels: whose recipes suit it; others have those for 512
    128: "tiny",
    256: "small",
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
    package = Path(__file__).resolve().parents[1]
    installed = package / "recipes_data"
    return installed if installed.is_dir() else package.parent / "recipes"


def folder_of(kind: str) -> str:
    """The folder that holds recipes of a kind: `targets`, `finetune`, `pretrain`, `verdict` or `degradations`."""
    return "degradations" if kind == "degrade" else kind.partition("-")[0]


def find_recipe(name_or_path: str | Path, folder: str, pack: str | None = None) -> Path:
    """The file of a recipe.

    Args:
        name_or_path: a path (anything that ends in .yaml or .yml), a full name as in `RecipeInfo.name`, or a name
            within `folder`, looked up among the recipes for `pack` first.
        folder: `targets`, `finetune`, `pretrain`, `verdict` or `degradations`.
        pack: name or folder of the pack whose recipes go first: of a folder those for faces of its size.

    Raises:
        RecipeError: no such recipe; the message names the nearest one, or all there are.
    """
    name = str(name_or_path)
    if isinstance(name_or_path, Path) or name.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if not path.is_file():
            shipped = path.with_suffix("").as_posix()
            hint = f"; '{shipped}' ships with the package" if (recipes_folder() / f"{shipped}.yaml").is_file() else ""
            raise RecipeError(f"{path}: no such recipe file{hint}")
        return path
    root = recipes_folder()
    pack = _recipes_of(pack)
    for place in [f"{pack}/{folder}/{name}"] * (pack is not None) + [f"{folder}/{name}", name]:
        path = root / f"{place}.yaml"
        if path.is_file():
            return path
    # What leads to each recipe of this kind: its own name, or the full one where another pack has it.
    own = [folder] if pack is None else [folder, f"{pack}/{folder}"]
    names = [_name(path, root) for path in sorted(root.rglob(f"{folder}/*.yaml"))]
    names = sorted({full.rpartition("/")[2] if full.rpartition("/")[0] in own else full for full in names})
    _refuse_other_ending(name)
    raise RecipeError(f"no {folder} recipe '{name}'{_among(name, names)} (a path ends in .yaml)")


def _recipes_of(pack: str | None) -> str | None:
    """The recipes that go first for a pack: by its name, or where it is a folder or its card, by its size."""
    if pack is None or pack in SIZED.values():
        return pack
    given = Path(pack)
    card = given / "pack.yaml" if given.is_dir() else given
    if card.suffix not in (".yaml", ".yml") or not card.is_file():
        return pack
    size = Draft.read(card).values.get("size")
    return next((name for side, name in SIZED.items() if side == size), None)


def list_recipes(kind: str | None = None) -> list[RecipeInfo]:
    """All recipes that ship, sorted by name; of one kind, or of one folder (`pretrain`), if it is given.

    Raises:
        RecipeError: there is no such kind.
    """
    kinds = sorted({*KINDS, *map(folder_of, KINDS)})
    if kind is not None and kind not in kinds:
        hint = _nearest(kind, kinds) or f"; one of {', '.join(kinds)}"
        raise RecipeError(f"no kind of recipe '{kind}'{hint}")
    root = recipes_folder()
    infos: list[RecipeInfo] = []
    for path in sorted(root.rglob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        description = next((line.lstrip("# ").rstrip() for line in lines if line.startswith("#")), "")
        infos.append(RecipeInfo(_name(path, root), kind_of(path), path, description))
    return [info for info in infos if kind in (None, info.kind, folder_of(info.kind))]


def recipe_text(name: str) -> str:
    """The text of a recipe that ships, comments included; `name` and errors as `shipped_recipe`."""
    return shipped_recipe(name).read_text(encoding="utf-8")


def shipped_recipe(name: str) -> Path:
    """The file of a recipe that ships, by its full name, or by its last part if that is unique.

    Raises:
        RecipeError: no such recipe, several, or a file that does not end in .yaml.
    """
    root = recipes_folder()
    files = {_name(path, root): path for path in sorted(root.rglob("*.yaml"))}
    found = [name] if name in files else [full for full, path in files.items() if path.stem == name]
    if len(found) > 1:
        raise RecipeError(f"'{name}' names {len(found)} recipes; say which: {', '.join(found)}")
    if not found:
        _refuse_other_ending(name)
        raise RecipeError(f"no recipe '{name}'{_among(name, list(files))}")
    return files[found[0]]


def _refuse_other_ending(name: str) -> None:
    """Say of a file, taken for the name of a recipe that ships, why it was: it is there, and no such recipe is."""
    if Path(name).is_file():
        raise RecipeError(f"{name}: a recipe's file must end in .yaml, and no recipe of this name ships; rename it")


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()


def _among(name: str, known: Sequence[str]) -> str:
    """The known recipe of the nearest name, or all that have the nearest name as their last part; or else all."""
    parts: dict[str, list[str]] = {}
    for full in known:
        parts.setdefault(full.rpartition("/")[2], []).append(full)
    near = get_close_matches(name, [*known, *parts], n=1)
    if near:
        meant = near if near[0] in known else parts[near[0]]
        return f"; did you mean {' or '.join(repr(each) for each in meant)}?"
    return f"; there are: {', '.join(known) or 'none'}"


def kind_of(path: Path) -> str:
    """The kind that a recipe file says it is, a key of `KINDS`.

    Raises:
        RecipeError: unreadable, or no kind, or an unknown one.
    """
    draft = Draft.read(path)
    kind = draft.values.get("kind")
    if kind not in KINDS:
        problem = "needed: what this is a recipe of" if kind is None else f"no such kind (got {kind!r})"
        hint = _nearest(str(kind), KINDS) or f"; one of {', '.join(KINDS)}"
        raise RecipeError(f"{draft.place(('kind',)).text}: kind: {problem}{hint}")
    return str(kind)


# ---------------------------------------------------------------- reading


def load_recipe(
    name_or_path: str | Path, schema: type[S], overrides: Sequence[str] = (), *, pack: str | None = None
) -> S:
    """Read a recipe, put the overrides over it, and check the whole.

    Args:
        name_or_path: see `find_recipe`; the folder follows from the schema's `kind`.
        schema: the settings that the recipe describes.
        overrides: `key=value`, with dots for what is nested and numbers for list items
            (`guidance.0.factor=8`); the value is YAML. Later ones win. A relative path is looked up beside the recipe's
            file, then in the working directory; one of an override, the other way round.
        pack: name or folder of the pack whose recipes go first.

    Raises:
        RecipeError: everything that is wrong, one line each, `FILE:LINE:COLUMN: key: what`, or
            `KEY=VALUE: key: what` where an override is at fault.
    """
    wanted = str(schema.model_fields["kind"].default)
    path = find_recipe(name_or_path, folder_of(wanted), pack)
    draft = Draft.read(path)
    for override in overrides:
        draft.override(override)
    kind = draft.values.get("kind", wanted)
    if kind != wanted and kind in KINDS:
        raise RecipeError(f"{draft.place(('kind',)).text}: kind: expected a {wanted} recipe (got a {kind} recipe)")
    try:
        settings = schema.model_validate(draft.values, context={"folder": path.parent, "given": draft.given()})
    except ValidationError as error:
        draft.problems += _explain(error, schema, draft)
    else:
        if not draft.problems:
            return settings
    raise RecipeError("\n".join(str(problem) for problem in sorted(draft.problems)))


def dump(settings: Settings) -> str:
    """Settings as YAML, defaults included: a recipe that `load_recipe` reads back as the same settings."""
    return to_yaml(settings.model_dump(mode="json"))


def recipe_digest(settings: Settings) -> str:
    """sha256 of resolved settings: of what they say, however the file is written; a camera's profile by its content."""
    return settings_digest(settings.identity())


# ---------------------------------------------------------------- explaining


def _explain(error: ValidationError, schema: type[BaseModel], draft: Draft) -> Iterator[Problem]:
    """One line per error of pydantic, in the words of a recipe."""
    for detail in error.errors(include_url=False):
        keys, model = _locate(detail["loc"], schema, draft.values)
        context = detail.get("ctx", {})
        got = f" (got {_shown(detail['input'])})"
        if detail["type"].startswith("union_tag"):  # found at the whole item, wrong in the key that names its kind
            keys = (*keys, str(context["discriminator"]).strip("'"))
        match detail["type"]:
            case "extra_forbidden":
                names = list(model.model_fields)
                what = "not a key of this recipe" if len(keys) == 1 else f"not a setting of {dotted(keys[:-1])}"
                hint = _nearest(str(keys[-1]), names) or f"; there are: {', '.join(names)}"
                text = what + got + hint
            case "missing":
                about = model.model_fields[str(keys[-1])].description
                text = "needed, and has no default" + (f" ({about})" if about else "")
            case "literal_error" | "union_tag_invalid":
                expected = str(context.get("expected", context.get("expected_tags", "")))
                value = context.get("tag", detail["input"])
                hint = _nearest(str(value), re.findall(r"'([^']*)'", expected))
                text = f"should be {expected} (got {_shown(value)}){hint}"
            case "union_tag_not_found":
                text = f"needed: it says which settings these are{got}"
            case "value_error":
                text = str(context["error"])
            case "int_parsing" | "int_type" | "int_from_float":
                text = "should be a whole number" + got
            case "float_parsing" | "float_type" | "finite_number":
                text = "should be a number" + got
            case "bool_parsing" | "bool_type":
                text = "should be true or false" + got
            case "model_type":
                text = "should be a mapping of settings" + got
            case "list_type" | "tuple_type":
                text = "should be a list" + got
            case _:
                text = detail["msg"].replace("Input should", "should") + got
        yield Problem(draft.place(keys), f"{dotted(keys)}: {text}" if keys else text)


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


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _nearest(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, list(names), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
