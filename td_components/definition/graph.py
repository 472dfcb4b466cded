"""A component as a plain dictionary, in which its three representations can be compared.

The spec (`of`), the expanded tree (`grammar.read`) and the component that the builder makes in the fake TouchDesigner
of the tests give the same dictionary. It omits what only some of them hold, such as the constant behind an expression.
"""

from __future__ import annotations

from typing import Any

from td_components.definition.spec import Component, Node, Parameter, Setting

Graph = dict[str, Any]


def of(component: Component) -> Graph:
    """The plain form of a spec."""
    return {
        "name": component.name,
        "comment": component.comment,
        "pages": list(component.pages),
        "parameters": [_parameter(p) for p in component.parameters],
        "settings": _settings(component.settings),
        "nodes": {n.name: _node(n) for n in component.nodes},
    }


def _parameter(p: Parameter) -> dict[str, Any]:
    bounded = p.low is not None and not p.read_only
    return {
        "name": p.name,
        "label": p.label,
        "page": p.page,
        "style": p.style.name,
        "default": plain(p.default),
        "low": float(p.low) if bounded and p.low is not None else None,
        "high": float(p.high) if bounded and p.high is not None else None,
        "menu": [list(choice) for choice in p.menu],
        "help": p.help,
        "section": p.section,
        "read_only": p.read_only,
    }


def plain(value: Any) -> Any:
    """Numbers and bools as float, text unchanged: the form that every representation can hold."""
    return float(value) if isinstance(value, (bool, int, float)) else value


def _settings(settings: tuple[Setting, ...]) -> dict[str, list[str]]:
    return {s.name: ["", s.expression] if s.expression else [s.value, ""] for s in settings}


def _node(n: Node) -> dict[str, Any]:
    return {
        "type": n.type,
        "tile": [n.x, n.y, *n.size],
        "settings": _settings(n.settings),
        "inputs": list(n.inputs),
        "dock": n.dock,
        "text": n.text,
    }


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """The differences between two plain forms, one line each; empty if there are none."""
    if isinstance(one, dict) and isinstance(other, dict):
        lines = [f"{place}/{key}: only in one of them" for key in sorted(one.keys() ^ other.keys())]
        for key in sorted(one.keys() & other.keys()):
            lines += differences(one[key], other[key], f"{place}/{key}")
        return lines
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            line for i, (a, b) in enumerate(zip(one, other, strict=True)) for line in differences(a, b, f"{place}/{i}")
        ]
    return [] if one == other else [f"{place}: {str(one)[:60]!r} is not {str(other)[:60]!r}"]
