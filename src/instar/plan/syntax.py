"""Python source as it means, not as it looks: the normal form of a syntax tree that step keys are made of, and what it reads.

Comments, layout, docstrings, names and annotations of locals and the Python version leave no trace in it; everything that can
change what the code does stays, other annotations among it. Needs the standard library only.

>>> meaning(ast.parse("'A note.'\\nx = ( 1 )  # one")).text
"Module(body=[Assign(targets=[Name(id='x')],value=Constant(value=int 1))])"
"""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from instar.plan import scopes
from instar.plan.scopes import Comprehension, Function, Scope, type_parameters, without_effectless

# Fields that say nothing about meaning, or nothing that the tree's shape does not say.
_SILENT = frozenset({"ctx", "type_comment", "kind", "type_ignores", "lineno", "col_offset"})
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

Chain = tuple[str, ...]
Target = tuple[int, str, str | None]  # of an import: level, module, attribute


@dataclass(frozen=True)
class Meaning:
    """What a piece of code says.

    A name from outside is written as a number in the order of first use, and so is a local: under which alias a module was
    imported makes no difference, what it is does.

    Attributes:
        text: The normal form.
        chains: Each name that it takes from outside, with the attributes read from it: `np.random.rand` is
            `("np", "random", "rand")`.
        names: How each of those names is written in the text.
        imports: Names bound by imports inside the code, as written in the text, and what they import.
        import_chains: Attributes read from those, the name first.
        optional: Names that need not be known: those in annotations only, and those that a class body also binds itself.
    """

    text: str
    chains: tuple[Chain, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    imports: dict[str, tuple[Target, ...]] = field(default_factory=dict)
    import_chains: tuple[Chain, ...] = ()
    optional: frozenset[str] = frozenset()


def meaning(node: ast.AST) -> Meaning:
    """What a function, lambda, class, statement, expression or module says, and what it reads from the scopes around it.

    The text is equal on all Pythons for the same source. Fields that are absent or empty are left out, because later
    Pythons add such fields; `ast.dump` is not used, because its result changed between versions.
    """
    writer = _Writer()
    with _deep_recursion():
        writer.write(node)
    needed = {chain[0] for chain in writer.chains}
    return Meaning(
        "".join(writer.parts),
        tuple(sorted(writer.chains | writer.noted)),
        writer.free,
        {name: tuple(sorted(found, key=str)) for name, found in sorted(writer.imports.items())},
        tuple(sorted(writer.import_chains)),
        frozenset({chain[0] for chain in writer.noted} - needed),
    )


class _Writer:
    """One pass over a tree, scope by scope."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.chains: set[Chain] = set()
        self.noted: set[Chain] = set()
        self.free: dict[str, str] = {}
        self.imports: dict[str, set[Target]] = {}
        self.import_chains: set[Chain] = set()
        self._scopes: list[Scope] = []
        self._kept: frozenset[str] | None = frozenset()
        self._inside = 0  # functions and comprehensions around
        self._locals = 0
        self._annotating = False

    def write(self, value: object) -> None:
        if isinstance(value, ast.AST):
            special = _SPECIAL.get(type(value))
            if special is not None:
                special(self, value)
            else:
                self._node(value, _fields(value))
        elif isinstance(value, list):
            self.parts.append("[")
            for index, inner in enumerate(value):
                if index:
                    self.parts.append(",")
                self.write(inner)
            self.parts.append("]")
        else:
            self.parts.append(ascii(value))

    def _node(self, node: ast.AST, fields: Iterable[tuple[str, object]]) -> None:
        self.parts.append(type(node).__name__ + "(")
        first = True
        for name, inner in fields:
            self.parts.append(f"{'' if first else ','}{name}=")
            first = False
            self.write(inner)
        self.parts.append(")")

    # Names.

    def _resolve(self, name: str) -> tuple[str | None, Scope | None]:
        """How a name is written, and the scope that binds it; None and None when it comes from outside."""
        innermost = True
        for scope in reversed(self._scopes):
            if name in scope.names and (innermost or not scope.is_class):
                written = scope.names[name]
                if written is None:
                    written = scope.names[name] = f"%{self._locals}"
                    self._locals += 1
                return written, scope
            innermost = False
        return None, None

    def _outside(self, name: str) -> str:
        return self.free.setdefault(name, f"+{len(self.free)}")

    def _read(self, chain: Chain) -> str:
        """Note a name that is read, with the attributes read from it; returns how the name is written."""
        head = chain[0]
        written, scope = self._resolve(head)
        if written is not None and scope is not None:
            if head in scope.imported:
                self.import_chains.add((written, *chain[1:]))
            if scope.is_class:  # which may also be a global, until the class binds it
                self.noted.add(chain)
            return written
        (self.noted if self._annotating else self.chains).add(chain)
        return self._outside(head)

    def _name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            written = self._read((node.id,))
        else:
            written = self._resolve(node.id)[0] or node.id
        self.parts.append(f"Name(id={written!r})")

    def _attribute(self, node: ast.Attribute) -> None:
        attributes: list[str] = []
        base: ast.expr = node
        while isinstance(base, ast.Attribute):
            attributes.append(base.attr)
            base = base.value
        self.parts.append("Attribute(value=" * len(attributes))
        if isinstance(base, ast.Name):
            self.parts.append(f"Name(id={self._read((base.id, *reversed(attributes)))!r})")
        else:
            self.write(base)
        self.parts.append("".join(f",attr={one!a})" for one in reversed(attributes)))

    def _binding(self, node: ast.ExceptHandler | ast.MatchAs | ast.MatchStar | ast.MatchMapping) -> None:
        """A node that binds a name which stands in a field of its own."""
        field_ = "rest" if isinstance(node, ast.MatchMapping) else "name"
        self._node(node, [one for one in _fields(node) if one[0] != field_])
        name = getattr(node, field_)
        if name is not None:
            self.parts.append(f"as {self._resolve(name)[0] or name!r}")

    def _shared(self, node: ast.Global | ast.Nonlocal) -> None:
        names = [self._resolve(name)[0] or name if isinstance(node, ast.Nonlocal) else name for name in node.names]
        self.parts.append(f"{type(node).__name__}(names=[{','.join(ascii(name) for name in names)}])")

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        written = []
        for alias in node.names:
            own = isinstance(node, ast.Import) and alias.asname is None
            bound = alias.name.partition(".")[0] if own else alias.asname or alias.name
            name = self._resolve(bound)[0] or bound
            if isinstance(node, ast.ImportFrom):
                self.imports.setdefault(name, set()).add((node.level, node.module or "", alias.name))
            elif own:  # `import a.b` binds a, and makes a.b readable from it
                self.imports.setdefault(name, set()).add((0, bound, None))
                self.imports.setdefault(alias.name, set()).add((0, alias.name, None))
            else:
                self.imports.setdefault(name, set()).add((0, alias.name, None))
            written.append(f"alias(name={alias.name!a}{'' if own else f',asname={name!a}'})")
        origin = f"module={node.module!a},level={node.level}," if isinstance(node, ast.ImportFrom) else ""
        self.parts.append(f"{type(node).__name__}({origin}names=[{','.join(written)}])")

    # Scopes.

    def _module(self, node: ast.Module) -> None:
        self._scopes.append(scopes.scope_of_body(node.body, is_class=False))
        self._node(node, _fields(node))
        self._scopes.pop()

    def _class(self, node: ast.ClassDef) -> None:
        self.parts.append(f"ClassDef(name={node.name!a}")
        for name, inner in _fields(node):
            if name not in ("name", "body"):
                self.parts.append(f",{name}=")
                self.write(inner)
        body = without_effectless(node.body)
        self._scopes.append(scopes.scope_of_body(node.body, is_class=True))
        if body:
            self.parts.append(",body=")
            self.write(body)
        self._scopes.pop()
        self.parts.append(")")

    def _function(self, node: Function) -> None:
        before = self._kept
        self._keep_names_of(node)
        scope = scopes.scope_of_function(node, self._kept)
        for one in type_parameters(node):
            scope.names[str(getattr(one, "name", ""))] = str(getattr(one, "name", ""))
        self.parts.append(type(node).__name__ + "(")
        if not isinstance(node, ast.Lambda):
            self.parts.append(f"name={node.name!a},")
            for one in node.decorator_list:
                self.parts.append("decorator=")
                self.write(one)
                self.parts.append(",")
            if node.returns is not None:
                self.parts.append("returns=")
                self._annotation(node.returns)
                self.parts.append(",")
        self._arguments(node.args, scope)
        self._scopes.append(scope)
        if type_parameters(node):
            self.parts.append(",type_params=")
            self.write(type_parameters(node))
        self.parts.append(",body=")
        self.write(node.body if isinstance(node, ast.Lambda) else without_effectless(node.body))
        self._scopes.pop()
        self._kept = before
        self._inside -= 1
        self.parts.append(")")

    def _keep_names_of(self, node: Function | Comprehension) -> None:
        """Decide, for the outermost function around, which names of locals stay."""
        if not self._inside:
            self._kept = scopes.names_to_keep(node)
        self._inside += 1

    def _arguments(self, arguments: ast.arguments, scope: Scope) -> None:
        """Parameters: their names are the function's, their defaults and annotations belong to the scope around it."""

        def written(one: ast.arg) -> None:
            name = scope.names[one.arg]
            if name is None:
                name = scope.names[one.arg] = f"%{self._locals}"
                self._locals += 1
            self.parts.append(f"{name!a}")
            if one.annotation is not None:
                self.parts.append(":")
                self._annotation(one.annotation)
            self.parts.append(",")

        self.parts.append("arguments(")
        for kind in ("posonlyargs", "args", "kwonlyargs"):
            if getattr(arguments, kind):
                self.parts.append(f"{kind}=")
                for one in getattr(arguments, kind):
                    written(one)
        for kind in ("vararg", "kwarg"):
            if getattr(arguments, kind) is not None:
                self.parts.append(f"{kind}=")
                written(getattr(arguments, kind))
        for kind in ("defaults", "kw_defaults"):
            if getattr(arguments, kind):
                self.parts.append(f"{kind}=")
                self.write(getattr(arguments, kind))
        self.parts.append(")")

    def _comprehension(self, node: Comprehension) -> None:
        before = self._kept
        self._keep_names_of(node)
        scope = scopes.scope_of_comprehension(node, self._kept)
        self.parts.append(type(node).__name__ + "(")
        self.write(node.generators[0].iter)  # evaluated outside
        self._scopes.append(scope)
        for index, generator in enumerate(node.generators):
            self.parts.append(f",{'async ' if generator.is_async else ''}for ")
            self.write(generator.target)
            if index:
                self.parts.append(" in ")
                self.write(generator.iter)
            for condition in generator.ifs:
                self.parts.append(" if ")
                self.write(condition)
        for part in [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]:
            self.parts.append(",")
            self.write(part)
        self._scopes.pop()
        self._kept = before
        self._inside -= 1
        self.parts.append(")")

    # Annotations, constants and f-strings.

    def _annotation(self, node: ast.expr) -> None:
        before, self._annotating = self._annotating, True
        self.write(node)
        self._annotating = before

    def _annotated(self, node: ast.AnnAssign) -> None:
        if self._inside and not self._scopes[-1].is_class:  # Python never evaluates a local's annotation
            if node.value is None:
                self.parts.append("Pass()")
            else:
                self.write(ast.Assign(targets=[node.target], value=node.value))
            return
        self.parts.append("AnnAssign(target=")
        self.write(node.target)
        self.parts.append(",annotation=")
        self._annotation(node.annotation)
        if node.value is not None:
            self.parts.append(",value=")
            self.write(node.value)
        self.parts.append(f",simple={node.simple})")

    def _constant(self, node: ast.Constant) -> None:
        # Not repr: which letters it prints as they are depends on the Unicode tables of the Python version.
        self.parts.append(f"Constant(value={type(node.value).__name__} {node.value!a})")

    def _joined(self, node: ast.JoinedStr) -> None:
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
        self.parts.append("JoinedStr(")
        self.write(pieces)
        self.parts.append(")")


def _fields(node: ast.AST) -> Iterator[tuple[str, object]]:
    for name in node._fields:
        inner = getattr(node, name, None)
        if name in _SILENT or inner is None or inner == []:
            continue
        if name == "body" and isinstance(node, _DOCUMENTED):
            inner = without_effectless(node.body)
            if not inner:
                continue
        yield name, inner


@contextlib.contextmanager
def _deep_recursion() -> Iterator[None]:
    """A chain of hundreds of `elif` or `+` is a tree as deep; Python's own functions need no stack of the machine for it."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 30_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


_SPECIAL: dict[type, Callable[[_Writer, Any], None]] = {
    ast.Name: _Writer._name,
    ast.Attribute: _Writer._attribute,
    ast.Constant: _Writer._constant,
    ast.JoinedStr: _Writer._joined,
    ast.Module: _Writer._module,
    ast.ClassDef: _Writer._class,
    ast.FunctionDef: _Writer._function,
    ast.AsyncFunctionDef: _Writer._function,
    ast.Lambda: _Writer._function,
    ast.Import: _Writer._import,
    ast.ImportFrom: _Writer._import,
    ast.Global: _Writer._shared,
    ast.Nonlocal: _Writer._shared,
    ast.AnnAssign: _Writer._annotated,
    ast.ListComp: _Writer._comprehension,
    ast.SetComp: _Writer._comprehension,
    ast.DictComp: _Writer._comprehension,
    ast.GeneratorExp: _Writer._comprehension,
    ast.ExceptHandler: _Writer._binding,
    ast.MatchAs: _Writer._binding,
    ast.MatchStar: _Writer._binding,
    ast.MatchMapping: _Writer._binding,
}
