"""Python source as it means, not as it looks: the text of a syntax tree that step keys are made of.

Comments, layout, docstrings and the Python version leave no trace in it; everything that can change what the code does
stays, annotations among it. Needs the standard library only.

>>> normal_text(ast.parse("'A note.'\\nx = ( 1 )  # one"))
"Module(body=[Assign(targets=[Name(id='x')],value=Constant(value=int 1))])"
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

# Fields that say nothing about meaning, or nothing that the tree's shape does not say.
_SILENT = frozenset({"ctx", "type_comment", "kind", "type_ignores", "lineno", "col_offset"})
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def normal_text(node: ast.AST) -> str:
    """The normal form of a tree, equal on all Pythons for the same source.

    Fields that are absent or empty are left out, because later Pythons add such fields. `ast.dump` is not used: its
    result changed between versions.
    """
    parts: list[str] = []
    _write(node, parts)
    return "".join(parts)


def _write(value: object, parts: list[str]) -> None:
    if isinstance(value, ast.JoinedStr):
        _write_joined(value, parts)
    elif isinstance(value, ast.AST):
        parts.append(type(value).__name__ + "(")
        first = True
        for name, inner in _fields(value):
            parts.append(f"{'' if first else ','}{name}=")
            first = False
            _write(inner, parts)
        parts.append(")")
    elif isinstance(value, list):
        parts.append("[")
        for index, inner in enumerate(value):
            parts.append("," if index else "")
            _write(inner, parts)
        parts.append("]")
    else:
        parts.append(str(value) if isinstance(value, _Plain) else ascii(value))


def _fields(node: ast.AST) -> Iterator[tuple[str, object]]:
    if isinstance(node, ast.Constant):
        # Not repr: which letters it prints as they are depends on the Unicode tables of the Python version.
        yield "value", _Plain(f"{type(node.value).__name__} {node.value!a}")
        return
    for name in node._fields:
        inner = getattr(node, name, None)
        if name in _SILENT or inner is None or inner == []:
            continue
        if name == "body" and isinstance(node, _DOCUMENTED):
            inner = _without_docstring(node.body)
            if not inner:
                continue
        yield name, inner


class _Plain(str):
    """Text that stands for itself."""


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    return [statement for statement in body if not (_is_text(statement) or isinstance(statement, ast.Pass))]


def _is_text(statement: ast.stmt) -> bool:
    """Is it a string that stands alone, as docstrings and notes under an attribute do? It has no effect."""
    constant = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(constant, ast.Constant) and isinstance(constant.value, str)


def _write_joined(node: ast.JoinedStr, parts: list[str]) -> None:
    # Pythons differ in how they cut the constant text of an f-string (PEP 701), so neighbours are joined.
    pieces: list[object] = []
    for piece in node.values:
        if isinstance(piece, ast.Constant) and isinstance(piece.value, str):
            if not piece.value:
                continue
            if pieces and isinstance(pieces[-1], str):
                pieces[-1] += piece.value
                continue
            pieces.append(piece.value)
        else:
            pieces.append(piece)
    parts.append("JoinedStr(")
    _write(pieces, parts)
    parts.append(")")


@dataclass
class Reads:
    """Names that a piece of code takes from outside itself.

    Attributes:
        chains: Each name with the attributes read from it: `np.random.rand` is `("np", "random", "rand")`.
        imports: Names bound by imports inside the code: `alias -> (level, module, attribute or None)`.
        optional: Names that need not be known: those in annotations only, and those that a class body also binds itself.
    """

    chains: set[tuple[str, ...]] = field(default_factory=set)
    imports: dict[str, tuple[int, str, str | None]] = field(default_factory=dict)
    optional: set[str] = field(default_factory=set)


def reads_of(node: ast.AST) -> Reads:
    """What a function, lambda, class, statement or expression reads from the scopes around it."""
    reads = Reads()
    noted: set[tuple[str, ...]] = set()
    reads.chains = _free(node, reads, noted)
    reads.optional = {chain[0] for chain in noted} - {chain[0] for chain in reads.chains}
    reads.chains |= noted
    return reads


def _free(node: ast.AST, reads: Reads, noted: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Chains read in `node` and not bound in it; imports go to `reads`, and chains that are optional to `noted`."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return _free_of_function(node, reads, noted)
    if isinstance(node, ast.ClassDef):
        outside = [*node.decorator_list, *node.bases, *(item.value for item in node.keywords)]
        found = _free_of_all([*outside, *_type_parameters(node)], reads, noted)
        bound: set[str] = set()
        for statement in node.body:
            _bindings(statement, bound, set())
        for statement in node.body:
            inner = _free(statement, reads, noted)
            # Methods do not see the names of the class body; its other statements do.
            if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                noted |= {chain for chain in inner if chain[0] in bound}
                inner = {chain for chain in inner if chain[0] not in bound}
            found |= inner
        return found
    if isinstance(node, _COMPREHENSIONS):
        return _free_of_comprehension(node, reads, noted)
    if isinstance(node, ast.Attribute | ast.Name):
        chain, base = _chain(node)
        if chain is None:
            return _free(base, reads, noted)
        stored = isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
        return set() if stored else {chain}
    if isinstance(node, ast.Import | ast.ImportFrom):
        _note_import(node, reads)
        return set()
    if isinstance(node, ast.AnnAssign):
        noted |= _free(node.annotation, reads, noted)
        return _free_of_all([node.target, node.value], reads, noted)
    if isinstance(node, ast.arg):
        if node.annotation is not None:
            noted |= _free(node.annotation, reads, noted)
        return set()
    return _free_of_all(ast.iter_child_nodes(node), reads, noted)


def _free_of_all(nodes: Iterable[ast.AST | None], reads: Reads, noted: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for node in nodes:
        if node is not None:
            found |= _free(node, reads, noted)
    return found


def _free_of_function(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, reads: Reads, noted: set[tuple[str, ...]]
) -> set[tuple[str, ...]]:
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    outside = _free_of_all([*arguments.defaults, *arguments.kw_defaults, *every], reads, noted)
    body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else list(node.body)
    if not isinstance(node, ast.Lambda):
        outside |= _free_of_all(node.decorator_list, reads, noted)
        if node.returns is not None:
            noted |= _free(node.returns, reads, noted)
    bound = {one.arg for one in every} | {str(getattr(one, "name", "")) for one in _type_parameters(node)}
    shared: set[str] = set()
    for statement in body:
        _bindings(statement, bound, shared)
    own = bound - shared
    # An import binds a name here too, but one that can be followed, so it stays among the reads.
    inner = {chain for chain in _free_of_all(body, reads, noted) if chain[0] not in own}
    return outside | inner


def _type_parameters(node: ast.AST) -> list[ast.AST]:
    """`T` of `def f[T]`, which Python has since 3.12."""
    found: list[ast.AST] = getattr(node, "type_params", [])
    return found


def _free_of_comprehension(
    node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, reads: Reads, noted: set[tuple[str, ...]]
) -> set[tuple[str, ...]]:
    found = _free(node.generators[0].iter, reads, noted)  # evaluated outside
    bound: set[str] = set()
    inner: list[ast.AST] = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
    for index, generator in enumerate(node.generators):
        _bindings(generator.target, bound, set())
        inner += [generator.target, *generator.ifs, *([generator.iter] if index else [])]
    return found | {chain for chain in _free_of_all(inner, reads, noted) if chain[0] not in bound}


def _bindings(node: ast.AST, bound: set[str], shared: set[str]) -> None:
    """Names that `node` binds in the scope it stands in; `shared` are those declared global or nonlocal."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        bound.add(node.name)
        return
    if isinstance(node, ast.Lambda):
        return
    if isinstance(node, ast.Global | ast.Nonlocal):
        shared.update(node.names)
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        bound.add(node.id)
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name is not None:
        bound.add(node.name)
    elif isinstance(node, ast.MatchMapping) and node.rest is not None:
        bound.add(node.rest)
    inner = ast.iter_child_nodes(node)
    if isinstance(node, _COMPREHENSIONS):  # its targets are its own; only := reaches out
        inner = (walrus.target for walrus in ast.walk(node) if isinstance(walrus, ast.NamedExpr))
    for child in inner:
        _bindings(child, bound, shared)


def _chain(node: ast.expr) -> tuple[tuple[str, ...] | None, ast.AST]:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        return (node.id, *reversed(names)), node
    return None, node


def _note_import(node: ast.Import | ast.ImportFrom, reads: Reads) -> None:
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            reads.imports[alias.asname or alias.name] = (node.level, node.module or "", alias.name)
        elif alias.asname is not None:
            reads.imports[alias.asname] = (0, alias.name, None)
        else:  # `import a.b` binds a, and makes a.b readable from it
            top = alias.name.partition(".")[0]
            reads.imports[top] = (0, top, None)
            reads.imports.setdefault(alias.name, (0, alias.name, None))
