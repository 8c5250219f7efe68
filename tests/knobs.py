"""Which settings a test turns, and which there are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from pydantic import BaseModel


def settings_of(model: type[BaseModel], *but: str) -> set[str]:
    """Names of a model's settings, those of the models within as `outer.inner`; but for some, each with its reason."""
    names: set[str] = set()
    for name, field in model.model_fields.items():
        annotations: list[object] = [field.annotation, *get_args(field.annotation)]
        members = [each for each in annotations if isinstance(each, type) and issubclass(each, BaseModel)]
        if members and type(None) not in annotations:
            names |= {f"{name}.{each}" for inner in members for each in inner.model_fields}
        else:
            names.add(name)
    assert names >= set(but), f"there is no {set(but) - names}"
    return names - set(but)


def names_of(overrides: Iterable[str]) -> set[str]:
    """What overrides `name=value` change."""
    return {each.partition("=")[0] for each in overrides}


def differing(base: BaseModel, changed: Iterable[BaseModel]) -> set[str]:
    """The settings in which one of them is not as `base`."""
    return {name for each in changed for name, value in each if value != getattr(base, name)}
