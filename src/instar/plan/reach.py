"""All that a piece of code reaches, followed object by object when a fingerprint is taken: functions, classes, constants.

A label names a thing where it is used; parts hold the digest of what it is. A value that has no canonical text counts by the
top-level statements that made it, and what those read.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import sys
import types
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from instar.core.ids import digest_of
from instar.plan import notebooks, sourcecode, syntax, values
from instar.plan.distributions import distributions_of
from instar.plan.sourcecode import Sources
from instar.plan.suspects import suspects
from instar.plan.syntax import Chain, Meaning, Target

# Python's own notes on a module: where it lies is not what it does.
_OF_THE_MODULE = frozenset({"__file__", "__path__", "__spec__", "__loader__", "__doc__", "__builtins__", "__package__"})
_MADE = " as made"  # a global function that its closure alone does not tell: the label of the statements that made it


class Reach:
    """One walk over all that some code reaches.

    Attributes:
        parts: Digest of each function, class and constant, by label.
        distributions: Version of each installed distribution.
        unresolved: What could not be followed.
        opaque: Objects that nothing can stand for, and where they are held.
    """

    def __init__(self, sources: Sources, ignore: frozenset[str] = frozenset()) -> None:
        self.parts: dict[str, str] = {}
        self.distributions: dict[str, str] = {}
        self.unresolved: set[str] = set()
        self.opaque: list[tuple[str, object]] = []
        self._sources = sources
        self._ignore = ignore
        self._labels: dict[int, str] = {}
        self._globals: dict[tuple[str, str], str] = {}
        self._untold: dict[str, values.Opaque] = {}  # functions whose closure holds what has no canonical text
        self._open: set[int] = set()  # objects whose state is being read: a ring ends there
        self._alive: list[object] = []  # ids are keys above, so nothing seen may be freed

    def start(self, function: Any) -> str:
        """Follow a function; returns its label."""
        label = self.callable_(function)
        return self._as_made(label, getattr(function, "__globals__", {}), getattr(function, "__name__", "?"))

    def program(self, name: str, text: str, given: frozenset[str]) -> str:
        """Follow the program that a notebook's cells make, without running it; returns its label."""
        tree = notebooks.tree_of(text, f"notebook {name}")
        said = syntax.meaning(tree)
        self.parts[name] = ""
        self.parts[name] = digest_of({"source": said.text, "reads": self._follow(name, said, {}, given)})
        for line, what in suspects(tree):
            self.unresolved.add(f"{name}, {notebooks.place(text, line)}: {what}")
        return name

    # What is met: each method returns the label of a thing, and sees to it that its parts are taken.

    def callable_(self, value: Any) -> str:
        """A function, class, method, partial or wrapper of the project."""
        if id(value) in self._labels:
            return self._labels[id(value)]
        self._alive.append(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.MethodType):
            return self._around(value.__func__, "method {} of {}", value.__self__)
        if isinstance(value, functools.partial):
            return self._around(value.func, "partial {} {} {}", value.args, value.keywords)
        if isinstance(value, staticmethod | classmethod):
            return self.callable_(value.__func__)
        if hasattr(value, "__wrapped__"):  # functools.cache and its like, whose arguments stand in the decorated source
            return self._around(value.__wrapped__, "wrapped {}")
        return self._external(value)

    def _around(self, inner: Any, label: str, *held: object) -> str:
        inside = self.callable_(inner)
        found = label.format(inside, *(self.value(one) for one in held))
        if inside in self._untold:
            self._untold[found] = self._untold[inside]
        return found

    def value(self, value: object) -> str:
        """Canonical text of a value.

        Raises:
            values.Opaque: It has none.
        """
        return values.canonical(value, self._reference)

    def _reference(self, value: object) -> str | None:
        """Label of what a value refers to, when it is code that can be named."""
        if isinstance(value, types.ModuleType):
            raise values.Opaque(value)
        if isinstance(value, functools.partial | types.MethodType) or (
            callable(value) and (self._is_ours(value) or hasattr(value, "__wrapped__"))
        ):
            label = self.callable_(value)
            if label in self._untold:
                raise self._untold[label]
            return label
        if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            raise values.Opaque(value)
        if isinstance(value, PurePath) and value.is_absolute() and value.is_relative_to(self._sources.root):
            return f"path in the project {value.relative_to(self._sources.root).as_posix()}"
        return self._instance(value) if self._is_ours(type(value)) else None

    def _instance(self, value: object) -> str:
        if id(value) in self._open:
            return "ring"
        self._open.add(id(value))
        try:
            return f"instance of {self.callable_(type(value))} {self.value(values.state_of(value))}"
        finally:
            self._open.remove(id(value))

    def _is_ours(self, value: object) -> bool:
        if isinstance(value, types.FunctionType):
            return self._sources.is_ours(value.__code__.co_filename)
        if isinstance(value, type):
            return self._sources.is_ours(sourcecode.file_of_module(value.__module__))
        return False

    def _function(self, function: types.FunctionType) -> str:
        if not self._is_ours(function):
            return self._external(function)
        code = function.__code__
        namespace = function.__globals__
        name = self._new_name(function, f"{namespace.get('__name__', '?')}.{code.co_qualname}")
        file = self._sources.file(code.co_filename)
        node = file.function(code) if file else None
        if node is None:
            self.unresolved.add(f"{name}: its source cannot be found")
            self.parts[name] = digest_of([code.co_code.hex(), [repr(one) for one in code.co_consts]])
            return name
        meaning, suspected = self._sources.meaning(node, namespace)
        closure = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        content = {
            "source": meaning.text,
            "defaults": self._attempt(function.__defaults__),
            "keyword defaults": self._attempt(function.__kwdefaults__),
            "closure": {
                meaning.names.get(variable, variable): self._cell(name, variable, cell)
                for variable, cell in closure.items()
            },
            "attributes": self._attributes_of(function),
            "reads": self._follow(name, meaning, namespace, frozenset(closure)),
        }
        self.parts[name] = digest_of(content)
        self._suspect(name, code.co_filename, suspected)
        return name

    def _class(self, cls: type) -> str:
        if not self._is_ours(cls):
            return self._external(cls)
        name = self._new_name(cls, f"{cls.__module__}.{cls.__qualname__}")
        namespace = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
        file = self._sources.file(sourcecode.file_of_module(cls.__module__))
        nodes = file.classes(cls.__qualname__) if file else []
        changes = [] if file is None else file.statements_about(cls.__name__, mentions=False)
        content: dict[str, object] = {"set": self._set_on(cls)}
        if not nodes:  # made by a call, such as namedtuple or type
            fields = {key: self._attempt(inner) for key, inner in sorted(vars(cls).items()) if not key.startswith("__")}
            content |= {"bases": [self.callable_(base) for base in cls.__bases__], "fields": fields}
        told = [self._told(name, node, namespace, cls.__name__) for node in dict.fromkeys([*nodes, *changes])]
        self.parts[name] = digest_of({**content, "source": told})
        return name

    def _set_on(self, cls: type) -> dict[str, str]:
        """Attributes as they are now, where a value or a foreign function says so: any file may have set them."""
        return {
            key: self._attempt(inner)
            for key, inner in sorted(vars(cls).items())
            if not (key.startswith("_") and key.endswith("_"))
            and (values.is_plain(inner) or _is_foreign(inner, f"{cls.__qualname__}.{key}"))
        }

    def _told(self, owner: str, node: ast.AST, namespace: Mapping[str, Any], itself: str) -> list[object]:
        """What a statement says and reads."""
        meaning, suspected = self._sources.meaning(node, namespace)
        self._suspect(owner, namespace.get("__file__"), suspected)
        return [meaning.text, self._follow(owner, meaning, namespace, frozenset({itself}))]

    def _external(self, value: Any) -> str:
        module = str(getattr(value, "__module__", None) or type(value).__module__)
        self._distribution(module)
        # Wrappers of libraries (contextmanager, singledispatch) may hold functions of the project.
        if isinstance(value, types.FunctionType):
            for inner in sourcecode.held_by(value):
                if self._is_ours(inner):
                    self.callable_(inner)
        if hasattr(value, "__wrapped__") and self._is_ours(value.__wrapped__):
            return f"wrapped {self.callable_(value.__wrapped__)}"
        return f"{module}.{getattr(value, '__qualname__', type(value).__qualname__)}"

    def _module(self, module: types.ModuleType) -> str:
        """A module handed about as a value: any of it may be used."""
        name = f"{module.__name__} (whole module)"
        if name not in self.parts:
            self.parts[name] = ""  # met again on the way: a ring
            file = self._sources.file(str(module.__file__))
            content: list[object] = []
            if file is not None:
                content = [self._told(name, statement, vars(module), "") for statement in file.tree.body]
            self.parts[name] = digest_of(content)
        return name

    # How names are followed from where they are read.

    def _follow(
        self, owner: str, meaning: Meaning, namespace: Mapping[str, Any], known: frozenset[str]
    ) -> dict[str, str]:
        found = {}
        for chain in meaning.chains:
            head = chain[0]
            written = ".".join((meaning.names.get(head, head), *chain[1:]))
            if head in known:
                found[written] = "known"
            elif head in _OF_THE_MODULE:
                found[written] = f"name {head}"
            elif head in namespace:
                found[written] = self._global(namespace, head, chain[1:])
            elif hasattr(builtins, head):
                found[written] = f"builtin {head}"
            else:
                found[written] = f"name {head}"
                if head not in meaning.optional and not head.startswith("__"):
                    self.unresolved.add(f"{owner}: the name {head} is not known when the run is planned")
        for written, targets in meaning.imports.items():
            chains = [chain[1:] for chain in meaning.import_chains if chain[0] == written]
            for target in targets:
                for rest in chains or [()]:
                    key = ".".join((f"import {written}", *rest))
                    found[key] = found.get(key, "") + self._imported(target, rest, namespace)
        return found

    def _imported(self, target: Target, rest: Chain, namespace: Mapping[str, Any]) -> str:
        """An import inside a function; project files are imported here, others only named."""
        level, module, attribute = target
        if level:
            package = str(namespace.get("__package__") or "")
            module = ".".join(part for part in (*package.split(".")[: -(level - 1) or None], module) if part)
        if not self._sources.is_our_module(module):
            self._distribution(module)
            return ".".join(["import " + module, *([attribute] if attribute else []), *rest])
        try:
            found = importlib.import_module(module)
            if attribute is None:
                return self._attribute(found, rest)
            if not hasattr(found, attribute):
                found = importlib.import_module(f"{module}.{attribute}")
                return self._attribute(found, rest)
        except ImportError as error:
            self.unresolved.add(f"import {module}: {error}")
            return f"import {module}"
        return self._attribute(found, (attribute, *rest))

    def _attribute(self, module: types.ModuleType, rest: Chain) -> str:
        """What `module.a.b` reads: attributes are followed through modules, never into objects."""
        if not self._sources.is_ours(getattr(module, "__file__", None)):
            if rest and hasattr(module, rest[0]) and self._sources.is_our_folder(module):
                return self._global(vars(module), rest[0], rest[1:])  # a folder of project files
            self._distribution(module.__name__)
            return ".".join(("import " + module.__name__, *rest))
        if not rest:
            return self._module(module)
        if not hasattr(module, rest[0]):
            self.unresolved.add(f"{module.__name__}.{rest[0]} is not known when the run is planned")
            return f"{module.__name__}.{rest[0]}"
        return self._global(vars(module), rest[0], rest[1:])

    def _global(self, namespace: Mapping[str, Any], name: str, rest: Chain) -> str:
        value = namespace[name]
        place = (str(namespace.get("__name__", "?")), name)
        if name in self._ignore or ".".join(place) in self._ignore:
            return f"ignored {'.'.join(place)}"
        if isinstance(value, types.ModuleType):
            return self._attribute(value, rest)
        if getattr(value, "__module__", None) == "instar.plan.steps":
            return f"import instar.{name}"  # its arguments stand in the decorated source; declaring is all it does
        if place not in self._globals:
            imported = self._imported_from_others(namespace, name)
            if imported is not None:
                return self._imported(imported, (), namespace)
            if self._is_ours(value) or (callable(value) and hasattr(value, "__wrapped__")):
                return self._as_made(self.callable_(value), namespace, name)
            label = self._globals[place] = self._free_name(".".join(place))
            self.parts[label] = ""
            try:
                self.parts[label] = digest_of(self.value(value))
                self._distribution(type(value).__module__)
            except values.Opaque as opaque:
                self._globals[place] = self._by_statement(label, namespace, name, opaque)
        return self._globals[place]

    def _imported_from_others(self, namespace: Mapping[str, Any], name: str) -> Target | None:
        """The import which binds a global that is not the project's: it counts by name and version."""
        file = self._sources.file(namespace.get("__file__"))
        found = file.import_of(name) if file else None
        return None if found is None or found[0] or self._sources.is_our_module(found[1]) else found

    def _as_made(self, label: str, namespace: Mapping[str, Any], name: str) -> str:
        """A global function; where its closure does not tell, the statements that made it do."""
        if label not in self._untold:
            return label
        place = (str(namespace.get("__name__", "?")), name)
        if place not in self._globals:
            made = self._globals[place] = self._free_name(".".join(place) + _MADE)
            self.parts[made] = ""
            self._globals[place] = self._by_statement(made, namespace, name, self._untold[label])
        return f"{label}, {self._globals[place]}"

    def _by_statement(self, label: str, namespace: Mapping[str, Any], name: str, opaque: values.Opaque) -> str:
        """A global whose value has no canonical text counts by the statements that made it, and what those read."""
        value = namespace.get(name)
        self._distribution(str(getattr(value, "__module__", None) or type(value).__module__))
        file = self._sources.file(namespace.get("__file__"))
        imported = file.import_of(name) if file else None
        if imported is not None:
            del self.parts[label]  # it has no part of its own: what it is called elsewhere says it all
            return self._imported(imported, (), namespace)
        statements = file.statements_about(name) if file else []
        if not statements or values.live_kind(opaque.value):
            self.opaque.append((label.removesuffix(_MADE), opaque.value))
        told = [self._told(label, statement, namespace, name) for statement in statements]
        # Other files may have put something into it; what can be told of that counts, too.
        self.parts[label] = digest_of({"source": told, "value": values.roughly(value)})
        return label

    def _cell(self, owner: str, variable: str, cell: types.CellType) -> str:
        if variable in self._ignore:
            return f"ignored {variable}"
        try:
            value = cell.cell_contents
        except ValueError:  # not bound yet
            return "empty"
        if isinstance(value, types.ModuleType):
            return self._attribute(value, ())
        try:
            return self.value(value)
        except values.Opaque as opaque:
            self._untold.setdefault(owner, opaque)
            self._distribution(str(getattr(value, "__module__", None) or type(value).__module__))
            return values.roughly(value)

    def _attributes_of(self, function: types.FunctionType) -> str:
        """What was set on a function, such as `helper.rate = 3`."""
        own = {name: value for name, value in vars(function).items() if not name.startswith("__")}
        return self._attempt(own) if own else ""

    def _attempt(self, value: object) -> str:
        try:
            return self.value(value)
        except values.Opaque:
            return "as written"  # the source says how it is made, and the names in it are followed

    def _suspect(self, owner: str, file: str | None, found: Iterable[tuple[int, str]]) -> None:
        self.unresolved.update(f"{owner}, {self._sources.place(file, line)}: {what}" for line, what in found)

    def _free_name(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self.parts:
            number += 1
            name = f"{wanted}#{number}"
        return name

    def _new_name(self, value: object, wanted: str) -> str:
        name = self._free_name(wanted)
        self._labels[id(value)] = name
        self.parts[name] = ""  # taken; filled when its parts are known
        return name

    def _distribution(self, module: str) -> None:
        self.distributions.update(distributions_of(module))


def _is_foreign(value: object, qualname: str) -> bool:
    return isinstance(value, types.FunctionType) and value.__qualname__ != qualname
