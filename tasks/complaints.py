"""What is wrong in pipeline.toml, in sentences: pydantic's errors, each with its key and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from tasks.errors import Problem
from tasks.fields import nearest, show, show_key

_EXPECTED = {
    "string_type": "a text in quotes",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_ELSEWHERE = {
    "pipeline": "the folder's name is the pipeline's name, and its schedule is [schedule] full",
    "name": "the folder's name is the pipeline's name",
    "deadline": "a deadline is [schedule] full",
    "population": "the population is what [entity] query returns",
}


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return the sentence for a key that does not exist."""
    there = list(known)
    hint = nearest(key, there)
    if not hint and key in _ELSEWHERE:
        hint = f"; {_ELSEWHERE[key]}"
    return f"unknown key{hint or '; remove it'}{'' if hint.endswith('?') else '.'} Valid: {', '.join(there)}"


def complaints(error: ValidationError, model: type[BaseModel], pipeline: str, place: str) -> Iterator[Problem]:
    """Yield one problem for each of pydantic's errors.

    Parameters
    ----------
    place
        File and table, such as ``churn/pipeline.toml [serve]``; the key is added.
    """
    for found in error.errors(include_url=False):
        refused = found.get("ctx", {}).get("refused", ())
        if found["type"] == "query_refused":
            for message in refused:
                where, _, sentence = message.partition(": ")
                yield Problem(place=f"{pipeline}/{where}", message=sentence)
            continue
        keys = [key for key in found["loc"] if key != "[key]"]
        for message in refused or [_sentence(found, model, keys)]:
            yield Problem(place=_joined(place, keys), message=message)


def _joined(place: str, keys: list[int | str]) -> str:
    key = ".".join(show_key(key) for key in keys)
    if not key:
        return place
    # A place that names an output or a source already goes on with a dot: [predictions] score.metod
    return f"{place} {key}" if place.endswith("]") else f"{place}.{key}"


def _sentence(found: Any, model: type[BaseModel], keys: list[int | str]) -> str:
    kind, value, context = found["type"], found["input"], found.get("ctx", {})
    if kind == "missing":
        return "missing; it is required"
    if kind == "extra_forbidden":
        return unknown_key(str(keys[-1]), _keys_at(model, keys[:-1]))
    if kind == "value_error":
        return str(context["error"])
    return f"{_expectation(found)}, found {show(value)}"


def _expectation(found: Any) -> str:
    """Return what was expected of a value, for the kinds that differ in nothing else."""
    kind, value, context = found["type"], found["input"], found.get("ctx", {})
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}"
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"expected {words} {context[bound]}"
    if kind == "literal_error":
        allowed = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
        meant = nearest(value, allowed).removeprefix("; ").removesuffix("?") if isinstance(value, str) else ""
        return f"expected {context['expected'].replace(chr(39), chr(34))}{f' ({meant}?)' if meant else ''}"
    return str(found["msg"])


def _keys_at(model: type[BaseModel], keys: list[int | str]) -> list[str]:
    """Return the valid keys of the table at a path, by their names in TOML."""
    for key in keys:
        fields = {_toml_name(name, field): field for name, field in model.model_fields.items()}
        inner = next(_models(fields[str(key)].annotation), None) if str(key) in fields else None
        model = inner or model
    return [
        _toml_name(name, field)
        for name, field in model.model_fields.items()
        if not (name == "name" and "method" in model.model_fields)
    ]


def _toml_name(name: str, field: Any) -> str:
    return field.validation_alias or name


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in {Union, UnionType, Annotated, dict, tuple}:
        for part in get_args(annotation):
            yield from _models(part)
