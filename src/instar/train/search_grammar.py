"""The grammar of the search language: the text of a filter or an order becomes a tree; used by every search.

    filter      = all { OR all }
    all         = one { AND one }
    one         = NOT one | "(" filter ")" | comparison
    comparison  = field operator value | field [NOT] IN "(" value { "," value } ")" | field IS [NOT] NULL
    field       = [ prefix "." ] key

All that MLflow's clients may write means the same here. A key may be bare, also with spaces and dots, as long as it is
clear where it ends; else it stands in quotes of any kind. A text stands in single or double quotes and is taken as it
stands; `e'…'` has backslash escapes, for the rare text with both. Words are read in any case, keys as written.
"""

from __future__ import annotations

import ast
import re
from typing import NoReturn

from instar.core.errors import BadInput
from instar.train.search_words import (
    NUMBER_OPERATORS,
    TEXT_OPERATORS,
    And,
    Comparison,
    Field,
    Not,
    Or,
    Order,
    Tree,
    Value,
    Vocabulary,
)

LONGEST = 200_000  # characters of a filter: a list of some thousand ids
MOST_COMPARISONS = 500
DEEPEST = 50  # brackets within brackets

_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"[A-Za-z_]\w*")
_SINGLE, _DOUBLE, _BACK = re.compile(r"'(?:''|\\'|[^'])*'"), re.compile(r'"(?:""|\\"|[^"])*"'), re.compile(r"`[^`]*`")
_ESCAPED = re.compile(r"[eE]'((?:\\.|[^'\\])*)'", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf(?:inity)?|nan)(?![\w.])", re.IGNORECASE)
_SIGN = re.compile(r"==|!=|<>|>=|<=|=|<|>")
_VERB = re.compile(
    r"(?:NOT\s+)?I?LIKE(?=\s*(?:['\"]|e'))|(?:NOT\s+)?IN(?=\s*\()|IS\s+NOT\s+NULL\b|IS\s+NULL\b", re.IGNORECASE
)
# Where a bare key ends: before an operator, or before what cannot be in it.
_KEY_END = re.compile(rf"\s*(?:{_SIGN.pattern})|\s+(?:{_VERB.pattern})|['\"`(),]", re.IGNORECASE)
_JOINING = re.compile(r"\s(?:AND|OR)\s", re.IGNORECASE)
_WANTED = {"text": "a text in quotes", "number": "a number", "time": "milliseconds since 1970, or a date in quotes"}
_DIRECTION = re.compile(r"(.*\S)\s+(ASC|DESC)\s*", re.IGNORECASE | re.DOTALL)


def parse(text: str, vocabulary: Vocabulary) -> Tree | None:
    """The tree of a filter; None for an empty one, which all records pass.

    Raises:
        BadInput: It cannot be read: the error says where, what stands there, and what was expected.
    """
    if len(text) > LONGEST:
        raise BadInput("the filter is too long", found=f"{len(text)} characters", asked=f"at most {LONGEST}")
    if not text.strip():
        return None
    reader = _Reader(text, vocabulary, "filter")
    tree = reader.either(0)
    if not reader.at_end():
        reader.refuse("AND, OR or the end")
    return tree


def parse_order(text: str, vocabulary: Vocabulary, what: str = "order") -> list[Order]:
    """The keys of an order, such as `metrics.loss DESC, start_time`; `what` it is called in an error.

    Raises:
        BadInput: It cannot be read.
    """
    found, start = [], 0
    for end in [*_commas(text), len(text)]:
        part = text[start:end]
        direction = _DIRECTION.fullmatch(part)
        key = direction.group(1) if direction else part.rstrip()
        reader = _Reader(text[:start] + key, vocabulary, what)
        reader.position = start
        field = reader.ordered()
        found.append(Order(field, direction is None or direction.group(2).upper() == "ASC"))
        start = end + 1
    return found


def parse_orders(texts: list[str] | tuple[str, ...], vocabulary: Vocabulary) -> list[Order]:
    """The keys of several orders, one after the other.

    Raises:
        BadInput: One cannot be read, or a key is there twice.
    """
    found = [order for text in texts for order in parse_order(text, vocabulary)]
    fields = [order.field for order in found]
    twice = next((field for field in fields if fields.count(field) > 1), None)
    if twice is not None:
        raise BadInput("the order has a key twice", subject="order", found=f"{twice.kind} {twice.key}")
    return found


class _Reader:
    """A place in the text, and what is read from there on."""

    def __init__(self, text: str, vocabulary: Vocabulary, what: str) -> None:
        self.text, self.vocabulary, self.what = text, vocabulary, what
        self.position = 0
        self.comparisons = 0

    def either(self, depth: int) -> Tree:
        parts = [self.all(depth)]
        while self.word("OR"):
            parts.append(self.all(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def all(self, depth: int) -> Tree:
        parts = [self.one(depth)]
        while self.word("AND"):
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def one(self, depth: int) -> Tree:
        if depth > DEEPEST:
            self.refuse(f"at most {DEEPEST} brackets within brackets")
        if self.word("NOT"):
            return Not(self.one(depth + 1))
        if self.sign("("):
            tree = self.either(depth + 1)
            if not self.sign(")"):
                self.refuse("AND, OR or a closing bracket")
            return tree
        return self.comparison()

    def comparison(self) -> Comparison:
        self.comparisons += 1
        if self.comparisons > MOST_COMPARISONS:
            self.refuse(f"at most {MOST_COMPARISONS} comparisons")
        field = self.field()
        self.skip()
        before = self.position
        match = _SIGN.match(self.text, before) or _VERB.match(self.text, before)
        if match is None:
            self.refuse("a comparison: =, !=, <, <=, >, >=, LIKE, ILIKE, IN (…), IS NULL")
        operator = " ".join(match.group().upper().split())
        operator = {"==": "=", "<>": "!="}.get(operator, operator)
        allowed = TEXT_OPERATORS if field.type == "text" else NUMBER_OPERATORS
        if operator not in allowed:
            self.refuse(f"for {field.kind} {field.key} one of {', '.join(allowed)}")
        self.position = match.end()
        if operator.endswith("NULL"):
            return Comparison(field, operator)
        return Comparison(field, operator, self.listed(field) if operator.endswith("IN") else self.value(field))

    def field(self) -> Field:
        self.skip()
        start = self.position
        word = _WORD.match(self.text, start)
        prefix = word.group() if word else self.peek_quoted()
        if prefix is not None:
            end = word.end() if word else self.end_of_quoted()
            if self.text.startswith(".", end):
                kind = self.vocabulary.prefixes.get(prefix)
                if kind is None:
                    self.refuse(f"one of {', '.join(sorted(self.vocabulary.prefixes))} before the dot")
                self.position = end + 1
                return self.known(kind, self.key(), start)
        return self.known("attribute", self.key(), start)

    def ordered(self) -> Field:
        """The field of an order: its bare key goes to the end."""
        field = self.field()
        if not self.at_end():
            self.refuse("ASC, DESC, a comma or the end")
        return field

    def known(self, kind: str, key: str, start: int) -> Field:
        field = self.vocabulary.field(kind, key)
        if field is None:
            self.position = start
            names = ", ".join(sorted({name for name, _ in self.vocabulary.closed[kind].values()}))
            self.refuse(f"one of the {kind}s {names}" + self.meant(kind, key))
        return field

    def meant(self, kind: str, key: str) -> str:
        return f", or metrics.{key}, params.{key}, tags.{key}" if kind == "attribute" and self.vocabulary.open else ""

    def key(self) -> str:
        quoted = self.peek_quoted()
        if quoted is not None:
            self.position = self.end_of_quoted()
            return quoted
        end = _KEY_END.search(self.text, self.position)
        stop = end.start() if end else len(self.text)
        key = self.text[self.position : stop].strip()
        joined = _JOINING.search(self.text, self.position, stop)
        if joined:
            self.position = joined.start()
            self.refuse("a comparison")
        if not key:
            self.refuse("a name, in quotes if it has signs in it")
        self.position = stop
        return key

    def peek_quoted(self) -> str | None:
        escaped = _ESCAPED.match(self.text, self.position)
        if escaped:
            return re.sub(r"\\(.)", r"\1", escaped.group(1), flags=re.DOTALL)
        quoted = self.quoted()
        return quoted.group()[1:-1] if quoted else None

    def end_of_quoted(self) -> int:
        match = _ESCAPED.match(self.text, self.position) or self.quoted()
        assert match is not None
        return match.end()

    def quoted(self) -> re.Match[str] | None:
        for pattern in (_SINGLE, _DOUBLE, _BACK):
            found = pattern.match(self.text, self.position)
            if found:
                return found
        return None

    def listed(self, field: Field) -> tuple[str | int | float, ...]:
        self.sign("(")
        found = [self.single(field, in_list=True)]
        while self.sign(","):
            if self.ahead(")"):
                break
            found.append(self.single(field, in_list=True))
        if not self.sign(")"):
            self.refuse("a comma or a closing bracket")
        return tuple(found)

    def value(self, field: Field) -> Value:
        return self.single(field)

    def single(self, field: Field, in_list: bool = False) -> str | int | float:
        self.skip()
        if field.type != "number" and not self.text.startswith("`", self.position):
            text = self.peek_quoted()
            if text is not None:
                start, self.position = self.position, self.end_of_quoted()
                plain = self.text[start] in "'\""
                return self.unescaped(start) if in_list and plain and "\\" in text else text
        number = _NUMBER.match(self.text, self.position) if field.type != "text" else None
        if number is not None:
            self.position = number.end()
            return self.number(number.group())
        return self.refuse(f"{_WANTED[field.type]} for {field.kind} {field.key}")

    def number(self, text: str) -> int | float:
        if text.lstrip("+-").isdigit() and len(text) < 19:
            return int(text)
        return float(text)

    def unescaped(self, start: int) -> str:
        try:
            return str(ast.literal_eval(self.text[start : self.position]))
        except (SyntaxError, ValueError):
            self.position = start
            self.refuse("a text whose backslashes are escapes")

    def word(self, word: str) -> bool:
        self.skip()
        end = self.position + len(word)
        if self.text[self.position : end].upper() != word or re.match(r"[\w.]", self.text[end : end + 1]):
            return False
        if word == "NOT" and _SIGN.match(self.text, _SPACE.match(self.text, end).end()):  # type: ignore[union-attr]
            return False  # an attribute of that name
        self.position = end
        return True

    def sign(self, sign: str) -> bool:
        if not self.ahead(sign):
            return False
        self.position += 1
        return True

    def ahead(self, sign: str) -> bool:
        self.skip()
        return self.text.startswith(sign, self.position)

    def at_end(self) -> bool:
        self.skip()
        return self.position >= len(self.text)

    def skip(self) -> None:
        self.position = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]

    def refuse(self, expected: str) -> NoReturn:
        rest = self.text[self.position : self.position + 30]
        raise BadInput(
            f"the {self.what} cannot be read at character {self.position + 1}",
            subject=f"{self.what} {self.text if len(self.text) <= 120 else self.text[:117] + '…'}",
            found=repr(rest) if rest else "the end",
            asked=expected,
        )


def _commas(text: str) -> list[int]:
    """Where commas stand outside of quotes."""
    found, position = [], 0
    while position < len(text):
        quoted = next((m for p in (_ESCAPED, _SINGLE, _DOUBLE, _BACK) if (m := p.match(text, position))), None)
        if quoted:
            position = quoted.end()
            continue
        if text[position] == ",":
            found.append(position)
        position += 1
    return found
