"""What pydantic found, in words: which field, what is wrong with it, what to do.

Knows: pydantic's error types. Must not know: files or lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from k8snetc.compiler.document import FieldPath

Finding = tuple[FieldPath, str, str]


def findings(
    error: ValidationError, original: Callable[[FieldPath], FieldPath] = lambda path: path
) -> Iterator[Finding]:
    """(path of the field, what is wrong, what to do) for each error of an object.

    `original`: where a field of what was validated stands in the object that somebody wrote.
    """
    for detail in error.errors(include_url=False, include_input=True):
        path = original(tuple(detail["loc"]))
        context = detail.get("ctx", {})
        if detail["type"] == "refused":
            yield path, _at(path, str(context["what"])), str(context["fix"])
        elif detail["type"] == "refused_all":
            for below, what, fix in context["all"]:
                place = original((*detail["loc"], *below))
                yield place, _at(place, what), fix
        else:
            yield (path, *_builtin(path, detail))


def path_text(path: FieldPath) -> str:
    """`("ports", 0, "name")` as `ports[0].name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _at(path: FieldPath, what: str) -> str:
    return f"{path_text(path)}: {what}" if path else what


_TYPES = {
    "string_type": ("is not text", "write it in quotes"),
    "int_type": ("is no whole number", "write a number without quotes"),
    "bool_type": ("is neither true nor false", "write true or false, without quotes"),
    "dict_type": ("is no mapping", "write it as key: value"),
    "model_type": ("is no mapping", "write it as key: value"),
    "tuple_type": ("is no list", "write it as a list, each item after a -"),
}


def _builtin(path: FieldPath, detail: ErrorDetails) -> tuple[str, str]:
    kind = detail["type"]
    shown = _show(detail["input"])
    if kind == "missing":
        return f"{path_text(path)} is missing", "give it"
    if kind == "literal_error":
        expected = str(detail.get("ctx", {}).get("expected", ""))
        return _at(path, f"{shown} is not one of {expected.replace(' or ', ', ')}"), "use one of those"
    if kind == "extra_forbidden":
        return (
            f"{path_text(path)} is no field that is known there",
            "check its spelling and its indentation: in a policy a misplaced field opens or shuts a hole",
        )
    if kind in _TYPES:
        what, fix = _TYPES[kind]
        return _at(path, f"{shown} {what}"), fix
    return _at(path, f"{shown}: {detail['msg'].lower()}"), "correct it"


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
