"""The table of routes: from the path of a request to the route that answers it, at the moment of a call.

A path without parameters is one look in a dictionary; the others are a walk from part to part, words before parameters, so
that the number of routes costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from instar.core.errors import MalformedRequest
from instar.interfaces.api.routes import PLAIN, Route, Voice

Methods = Mapping[str, Route]


@dataclass
class _Node:
    """One place in the tree of paths: the routes that end here, and where the next part leads."""

    methods: dict[str, Route] = field(default_factory=dict)
    words: dict[str, _Node] = field(default_factory=dict)
    suffixes: dict[str, _Node] = field(default_factory=dict)  # `{name}.json`
    any: _Node | None = None  # `{name}`
    rest: _Node | None = None  # `{name:path}`


class Table:
    """All routes, to be found by path.

    Args:
        routes: Two may not have the same method and form of path.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._static: dict[str, Methods] = {}
        self._root = _Node()
        self._names: dict[int, tuple[str, ...]] = {}
        self._voices: list[tuple[list[str], Voice]] = []
        self.add(routes)

    def add(self, routes: Iterable[Route]) -> None:
        """Take in more routes."""
        voices: dict[Voice, None] = {}
        for route in routes:
            node, names = self._place(route.path)
            if route.method in node.methods:
                raise ValueError(f"{route.method} {route.path} is there twice")
            node.methods[route.method] = route
            self._names[id(route)] = names
            voices[route.voice] = None
            if not names:
                self._static[route.path] = node.methods
        self._voices += [(prefix.strip("/").split("/"), voice) for voice in voices for prefix in voice.prefixes]

    def find(self, raw_path: str) -> tuple[Methods, tuple[str, ...]]:
        """The routes of a path by method, none where it is unknown, and the values of its parameters in their order.

        Args:
            raw_path: As it was sent, still quoted: `%2F` in a part is a letter of that part.

        Raises:
            MalformedRequest: It is not UTF-8, or has a NUL.
        """
        static = self._static.get(raw_path)
        if static is not None:
            return static, ()
        found = _walk(self._root, raw_path.removeprefix("/").split("/"), 0, ())
        return found if found is not None else ({}, ())

    def parameters(self, route: Route, values: tuple[str, ...]) -> dict[str, str]:
        """The values that `find` gave, by the names that the route has for them."""
        return dict(zip(self._names[id(route)], values, strict=True))

    def voice(self, raw_path: str) -> Voice:
        """The voice in which an unknown path is refused."""
        parts = raw_path.removeprefix("/").split("/")
        for prefix, voice in self._voices:
            if len(prefix) <= len(parts) and all(a == b or a[:1] == "{" for a, b in zip(prefix, parts, strict=False)):
                return voice
        return PLAIN

    def _place(self, path: str) -> tuple[_Node, tuple[str, ...]]:
        node, names = self._root, []
        for part in path.removeprefix("/").split("/"):
            if not part.startswith("{"):
                node = node.words.setdefault(part, _Node())
                continue
            name, _, suffix = part.removeprefix("{").partition("}")
            if name.endswith(":path"):
                node.rest = node.rest or _Node()
                node = node.rest
            elif suffix:
                node = node.suffixes.setdefault(suffix, _Node())
            else:
                node.any = node.any or _Node()
                node = node.any
            names.append(name.removesuffix(":path"))
        return node, tuple(names)


def _walk(node: _Node, parts: list[str], at: int, values: tuple[str, ...]) -> tuple[Methods, tuple[str, ...]] | None:
    """The first node with routes to which the parts lead."""
    if at == len(parts):
        return (node.methods, values) if node.methods else None
    part = _decoded(parts[at])
    word = node.words.get(part)
    if word is not None and (found := _walk(word, parts, at + 1, values)) is not None:
        return found
    for suffix, child in node.suffixes.items():
        if part.endswith(suffix) and len(part) > len(suffix):
            found = _walk(child, parts, at + 1, (*values, part.removesuffix(suffix)))
            if found is not None:
                return found
    if node.any is not None and part and (found := _walk(node.any, parts, at + 1, (*values, part))) is not None:
        return found
    if node.rest is not None and node.rest.methods:
        return node.rest.methods, (*values, _decoded("/".join(parts[at:])))
    return None


def _decoded(text: str) -> str:
    if "%" not in text:
        return text
    try:
        found = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise MalformedRequest("the path is not UTF-8", found=repr(text[:100])) from None
    if "\0" in found:  # nothing has a name with it, and not every database may be asked
        raise MalformedRequest("the path has a NUL", found=repr(text[:100]))
    return found
