"""A recipe before it is checked: the values of a YAML file, each with the place where it is written.

The YAML is that of the 1.2 core schema: `1e-4` is a number, `010` is ten, `no`, `off`, `on` and `yes` are words.
Tags and keys given twice are problems; so are aliases inside their own anchor. Other aliases may be used, as long as
what they stand for stays of the size of something that a person writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import yaml

from adapt.errors import RecipeError

SHOWN: Final = 5  # settings that differ, in a message
LONGEST: Final = 40  # characters of one of their values
MOST_BYTES: Final = 1 << 20  # of a file
MOST_VALUES: Final = 20_000  # with each alias counted as what it stands for: a few that hold each other make millions
DEEPEST: Final = 50
LARGEST: Final = 2**63  # whole numbers below it are those of everybody: of YAML's other readers, of torch, of a seed

Keys: TypeAlias = tuple[str | int, ...]
"""The way to a value: names in mappings, numbers in lists."""


def dotted(keys: Keys) -> str:
    """Keys as a user writes them: `guidance.0.factor`."""
    return ".".join(str(key) for key in keys)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something is written; places in the file sort before overrides, and each in their order."""

    override: int
    line: int
    column: int
    text: str


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something to mend, and where."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place.text}: {self.text}"


@dataclass(slots=True)
class Draft:
    """The values of a recipe, the place of each, and what is wrong with how they are written.

    Booleans are kept as the words `true` and `false`: settings that are booleans understand them, and a number
    does not mistake `true` for 1.
    """

    file: str
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    places: dict[Keys, Place] = field(default_factory=dict[Keys, Place])
    problems: list[Problem] = field(default_factory=list[Problem])
    overrides: int = 0
    counted: int = 0

    @classmethod
    def read(cls, path: Path) -> Draft:
        """Read a file.

        Raises:
            RecipeError: it cannot be read, is not YAML, does not hold a mapping, or holds too much.
        """
        try:
            with path.open("rb") as stream:
                content = stream.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise RecipeError(f"{path}: expected at most {MOST_BYTES >> 20} MB of YAML; this file is larger")
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path}: expected UTF-8 text; byte {error.start + 1} is none") from error
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, file: str) -> Draft:
        """Read what a file of this name says.

        Raises:
            RecipeError: it is not YAML, does not hold a mapping, or holds too much.
        """
        draft = cls(file)
        draft.places[()] = Place(0, 1, 1, f"{file}:1:1")
        node = _compose(text, file)
        if not isinstance(node, yaml.MappingNode):
            got = "nothing" if node is None else "a list" if isinstance(node, yaml.SequenceNode) else "one value"
            raise RecipeError(f"{file}:1:1: expected lines of `key: value`, got {got}")
        draft.values = draft._mapping(node, (), None, ())
        return draft

    def place(self, keys: Keys) -> Place:
        """The place of a value, or of the nearest thing around it that is written down."""
        while keys not in self.places:
            keys = keys[:-1]
        return self.places[keys]

    def override(self, text: str) -> None:
        """Put the value of `key=value` over what is there; a key that is not there yet is added."""
        self.overrides += 1
        place = Place(self.overrides, 0, 0, text)
        key, equals, value = text.partition("=")
        names = key.strip().split(".")
        before = dict(self.places)
        try:
            if not equals or not all(names):
                raise RecipeError("an override is written key=value, as in steps=20")
            node = _compose(value, key)
            holder, keys = self._holder(names, place)
            for old in [old for old in self.places if old[: len(keys)] == keys]:
                del self.places[old]
            self.places[keys] = place
            holder[keys[-1]] = None if node is None else self._value(node, keys, place, ())
        except RecipeError as error:
            self.places = before
            self.problems.append(Problem(place, str(error).removeprefix(f"{place.text}: ")))

    def given(self) -> frozenset[str]:
        """The words that overrides hold, wherever they stand in them."""
        overridden = [keys for keys, place in self.places.items() if place.override]
        values = [reduce(getitem, keys, cast(Any, self.values)) for keys in overridden]
        return frozenset(value for value in values if isinstance(value, str))

    def _holder(self, names: list[str], place: Place) -> tuple[Any, Keys]:
        """The mapping or list that holds the last of the names, and the keys to it; mappings on the way are made."""
        holder: Any = self.values
        keys: Keys = ()
        for name, following in zip(names, [*names[1:], None], strict=True):
            keys = (*keys, _key(holder, keys, name))
            if following is None:
                break
            if isinstance(holder, dict) and name not in holder:
                self.places[keys] = place
                holder[name] = {}
            holder = cast(Any, holder)[keys[-1]]
        return holder, keys

    def _value(self, node: yaml.Node, keys: Keys, place: Place | None, around: tuple[yaml.Node, ...]) -> Any:
        """The value of a node. Its places are all `place`; where that is None, each is the node's own."""
        self.counted += 1
        if self.counted > MOST_VALUES or len(around) > DEEPEST:
            most = f"more than {MOST_VALUES} values" if self.counted > MOST_VALUES else f"{DEEPEST} levels and more"
            raise RecipeError(
                f"{self.place(keys).text}: holds {most}, with what its aliases stand for; write out what is meant"
            )
        if any(node is outer for outer in around):
            self.problems.append(Problem(self.place(keys), f"{dotted(keys)}: an alias inside its own anchor"))
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, keys, place, around)
        if isinstance(node, yaml.SequenceNode):
            items: list[Any] = []
            for index, item in enumerate(node.value):
                self.places[*keys, index] = place or self._mark(item)
                items.append(self._value(item, (*keys, index), place, (*around, node)))
            return items
        return self._scalar(node, keys)

    def _mapping(
        self, node: yaml.MappingNode, keys: Keys, place: Place | None, around: tuple[yaml.Node, ...]
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            here = place or self._mark(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(here, "a key has to be one word"))
                continue
            inner: Keys = (*keys, str(key_node.value))
            if inner[-1] in values:
                first = self.places[inner].line
                where = f", first on line {first}" if first else ""
                self.problems.append(Problem(here, f"{dotted(inner)}: given twice{where}"))
                continue
            self.places[inner] = here
            values[str(key_node.value)] = self._value(value_node, inner, place, (*around, node))
        return values

    def _scalar(self, node: yaml.Node, keys: Keys) -> Any:
        text = str(node.value)
        match node.tag.removeprefix(_TAG):
            case "null":
                return None
            case "int":
                return self._whole_number(text, keys)
            case "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            case "bool":
                return text.lower()
            case "str":
                return text
            case _:
                self.problems.append(Problem(self.place(keys), f"{dotted(keys)}: tags are not used here ({node.tag})"))
                return text

    def _whole_number(self, text: str, keys: Keys) -> int:
        """The number; a problem, and 1 in its place, where it is too large: of thousands of digits for Python too."""
        number = LARGEST if len(text) > 100 else int(text, 0 if text[:2] in ("0x", "0o") else 10)
        if -LARGEST < number < LARGEST:
            return number
        what = f"a whole number of {len(text)} signs is too large; expected one below {LARGEST}, or quotes round a word"
        self.problems.append(Problem(self.place(keys), f"{dotted(keys)}: {what}"))
        return 1

    def _mark(self, node: yaml.Node) -> Place:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        return Place(0, line, column, f"{self.file}:{line}:{column}")


def to_yaml(values: dict[str, Any], *, in_blocks: bool = False) -> str:
    """YAML text that reads back as the same values, by YAML 1.1 or 1.2.

    Args:
        values: to write.
        in_blocks: each value on a line of its own, and every sign as it is; else short lists and mappings stay on one.
    """
    style = False if in_blocks else None
    return yaml.dump(
        values, Dumper=_Dumper, sort_keys=False, default_flow_style=style, width=110, allow_unicode=in_blocks
    )


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between the settings that something was made with and those that are given, for a message.

    `steps: 12 there, 3 now; guidance.1: none there, {...} now; and 4 more`, in the order of those that are given; empty
    where nothing differs.
    """
    found = [f"{dotted(keys)}: {_brief(old)} there, {_brief(new)} now" for keys, old, new in _differing(there, now)]
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "; ".join(found[:SHOWN] + more)


def _differing(there: Any, now: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any, Any]]:
    """Each key whose value differs, with both values; what only one side has, whole."""
    if isinstance(there, list) and isinstance(now, list):
        there, now = (dict(enumerate(cast(list[Any], side))) for side in (there, now))
    if isinstance(there, Mapping) and isinstance(now, Mapping):
        there, now = cast(Mapping[Any, Any], there), cast(Mapping[Any, Any], now)
        for key in dict.fromkeys((*now, *there)):
            yield from _differing(there.get(key), now.get(key), (*keys, key))
    elif there != now:
        yield keys, there, now


def _brief(value: Any) -> str:
    """A value in a few characters."""
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _key(holder: Any, around: Keys, name: str) -> str | int:
    """The name as a key of a mapping or an index of a list."""
    if isinstance(holder, dict):
        return name
    if not isinstance(holder, list):
        raise RecipeError(f"{dotted(around)}: holds nothing that could be named '{name}'")
    length = len(cast(list[Any], holder))
    if not name.isdecimal() or int(name) >= length:
        there = f"items 0 to {length - 1}" if length else "no items"
        raise RecipeError(f"{dotted(around)}: has {there} (got '{name}')")
    return int(name)


# ---------------------------------------------------------------- the YAML dialect

_TAG = "tag:yaml.org,2002:"
_RESOLVERS = [  # YAML 1.2, section 10.3.2
    (_TAG + "null", re.compile(r"(?:~|null|Null|NULL|)\Z")),
    (_TAG + "bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")),
    (_TAG + "int", re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")),
    (_TAG + "float", re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")),
    (_TAG + "float", re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")),
]


class _Loader(yaml.SafeLoader):
    """Tags plain scalars by the core schema of YAML 1.2."""

    yaml_implicit_resolvers = {None: _RESOLVERS}  # noqa: RUF012  # pyright: ignore[reportIncompatibleVariableOverride]


class _Dumper(yaml.SafeDumper):
    """Quotes every word that YAML 1.1 or 1.2 would take for something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # pyright: ignore[reportIncompatibleVariableOverride]
        **yaml.SafeDumper.yaml_implicit_resolvers,
        None: _RESOLVERS,
    }


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise RecipeError(f"{where}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{source}: not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise RecipeError(f"{source}: nested too deeply") from error
