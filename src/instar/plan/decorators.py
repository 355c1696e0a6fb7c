"""A step's definition without what its decorator says that changes no output: retries, timeouts, what its key leaves out."""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping

from instar.plan import terms

_SILENT = frozenset({*terms.NAMES, "ignore"})


def telling(node: ast.AST, namespace: Mapping[str, object]) -> ast.AST:
    """The definition as it counts; `node` itself where nothing is left out.

    Args:
        node: A function's definition, or any other code.
        namespace: What the names in it stand for.
    """
    if not isinstance(node, ast.FunctionDef) or not any(map(_may_be_silent, node.decorator_list)):
        return node
    bare = copy.copy(node)
    bare.decorator_list = [_telling(one, namespace) for one in node.decorator_list]
    return bare


def _may_be_silent(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and any(one.arg in _SILENT for one in decorator.keywords)


def _telling(decorator: ast.expr, namespace: Mapping[str, object]) -> ast.expr:
    if not isinstance(decorator, ast.Call) or not _may_be_silent(decorator):
        return decorator
    if getattr(_named(decorator.func, namespace), "__module__", None) != "instar.plan.steps":
        return decorator
    keywords = [one for one in decorator.keywords if one.arg not in _SILENT]
    return ast.copy_location(ast.Call(decorator.func, decorator.args, keywords), decorator)


def _named(node: ast.expr, namespace: Mapping[str, object]) -> object:
    """What a plain or dotted name stands for; None when that is not known."""
    if isinstance(node, ast.Attribute):
        return getattr(_named(node.value, namespace), node.attr, None)
    return namespace.get(node.id) if isinstance(node, ast.Name) else None
