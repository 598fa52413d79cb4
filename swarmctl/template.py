"""The part of Go's templates that --format needs.

    {{.Name}}  {{json .}}  {{range .Mounts}}..{{else}}..{{end}}  {{range $i, $x := .Tags}}  {{with .X}}
    {{if .X}}..{{else if .Y}}..{{end}}  {{$x := .Name}}  {{/* comment */}}  {{- trimmed -}}
    the functions of template_functions.py; pipes, "strings", numbers, $ for the top, .Label "key" for methods

A template is parsed into a list of nodes, and rendered on plain JSON values.
"""

from __future__ import annotations

import re

from swarmd.swarmctl.client import Refusal
from swarmd.swarmctl.jsontext import loads
from swarmd.swarmctl.template_functions import FUNCTIONS, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    _Names = dict[str, Any]

_TAG = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
_WORD = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|`[^`]*`|\(|\)|\||:=|=|,|[^\s()|,=:]+)""")


class TemplateError(Refusal):
    pass


class Text:
    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Value:
    __slots__ = ("words",)

    def __init__(self, words: list[str]) -> None:
        self.words = words


class Block:
    """range, with or if, with what it holds. joined: an `else if`, which ends with the block around it."""

    __slots__ = ("body", "joined", "kind", "other", "words")

    def __init__(self, kind: str, words: list[str], joined: bool = False) -> None:
        self.kind = kind
        self.words = words
        self.joined = joined
        self.body: list[Node] = []
        self.other: list[Node] = []


Node = Text | Value | Block


def render(template: str, data: Any) -> str:
    """Return the text; TemplateError names what is wrong with the template, or with using it on this."""
    return _render(parse(template), data, {"$": data})


def parse(template: str) -> list[Node]:
    nodes: list[Node] = []
    open_blocks: list[Block] = []
    targets: list[list[Node]] = [nodes]
    position, trim = 0, False
    for tag in _TAG.finditer(template):
        text = template[position : tag.start()]
        text = text.lstrip() if trim else text
        targets[-1].append(Text(text.rstrip() if tag[1] else text))
        position, trim = tag.end(), bool(tag[3])
        if tag[2].startswith("/*"):
            continue
        words = _WORD.findall(tag[2])
        head = words[0] if words else ""
        if head in ("range", "if", "with"):
            _open(Block(head, words[1:]), open_blocks, targets)
        elif head == "else" and open_blocks:
            targets[-1] = open_blocks[-1].other
            if len(words) > 1:
                _open(Block(words[1], words[2:], joined=True), open_blocks, targets)
        elif head == "end" and open_blocks:
            while open_blocks.pop().joined:
                targets.pop()
            targets.pop()
        elif head in ("", "else", "end"):
            raise TemplateError(f"template: {tag[0]} stands where nothing is open")
        else:
            targets[-1].append(Value(words))
    if open_blocks:
        raise TemplateError(f"template: {{{{{open_blocks[-1].kind}}}}} has no {{{{end}}}}")
    if "{{" in template[position:]:
        raise TemplateError("template: {{ has no }}")
    targets[-1].append(Text(template[position:].lstrip() if trim else template[position:]))
    return nodes


def _open(block: Block, open_blocks: list[Block], targets: list[list[Node]]) -> None:
    targets[-1].append(block)
    open_blocks.append(block)
    targets.append(block.body)


# ---------------------------------------------------------------- rendering; `names` are the variables, and $ the top


def _render(nodes: Sequence[Node], data: Any, names: _Names) -> str:
    return "".join(_node(node, data, names) for node in nodes)


def _node(node: Node, data: Any, names: _Names) -> str:
    if isinstance(node, Text):
        return node.text
    variables, words = _declared(node.words)
    value = _pipeline(words, data, names)
    if isinstance(node, Value):
        if variables:
            names[variables[0]] = value
            return ""
        return shown(value)
    if node.kind == "range":
        return _range(node, variables, value, data, names)
    inner = {**names, **dict.fromkeys(variables, value)}
    if not value:
        return _render(node.other, data, names)
    return _render(node.body, value if node.kind == "with" else data, inner)


def _range(node: Block, variables: list[str], value: Any, data: Any, names: _Names) -> str:
    if isinstance(value, int):
        value = list(range(value))
    pairs = sorted(value.items()) if isinstance(value, dict) else list(enumerate(value or ()))
    if not pairs:
        return _render(node.other, data, names)
    # One variable is the item; of two the first is its key or place.
    return "".join(
        _render(
            node.body, item, names | dict(zip(variables, (key, item) if len(variables) > 1 else (item,), strict=False))
        )
        for key, item in pairs
    )


def _declared(words: list[str]) -> tuple[list[str], list[str]]:
    """The variables before := (or =), and what they get."""
    for sign in (":=", "="):
        if sign in words and words[0].startswith("$"):
            place = words.index(sign)
            return [word for word in words[:place] if word != ","], words[place + 1 :]
    return [], words


def _pipeline(words: Sequence[str], data: Any, names: _Names) -> Any:
    stages: list[list[str]] = [[]]
    depth = 0
    for word in words:
        depth += (word == "(") - (word == ")")
        if word == "|" and not depth:
            stages.append([])
        else:
            stages[-1].append(word)
    value: Any = None
    for number, stage in enumerate(stages):
        if not stage:
            raise TemplateError("template: a pipe needs a value on both sides")
        value = _call(stage, data, names, (value,) if number else ())
    return value


def _call(words: list[str], data: Any, names: _Names, piped: tuple[Any, ...]) -> Any:
    head = words[0]
    function = FUNCTIONS.get(head)
    values = _arguments(words if function is None else words[1:], data, names)
    if function is None and values and callable(values[0]):
        function = values.pop(0)
    if function is not None:
        try:
            return function(*values, *piped)
        except (TypeError, KeyError, IndexError, ValueError, AttributeError, OverflowError) as problem:
            raise TemplateError(f"template: {' '.join(words)}: {problem}") from None
    if len(values) != 1 or piped:
        raise TemplateError(f"template: {head} is no function: use {', '.join(sorted(FUNCTIONS))}")
    return values[0]


def _arguments(words: Sequence[str], data: Any, names: _Names) -> list[Any]:
    values: list[Any] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "(":
            end = _closing(rest)
            values.append(_pipeline(rest[:end], data, names))
            del rest[: end + 1]
            if rest and re.match(r"\.\w", rest[0]) and len(values) == 1 and words[0] == "(":
                values[-1] = _path(values[-1], rest.pop(0))
        else:
            values.append(_operand(word, data, names))
    return values


def _closing(words: Sequence[str]) -> int:
    depth = 1
    for index, word in enumerate(words):
        depth += (word == "(") - (word == ")")
        if not depth:
            return index
    raise TemplateError("template: ( has no )")


def _operand(word: str, data: Any, names: _Names) -> Any:
    if word.startswith('"'):
        try:
            return loads(word)
        except ValueError as problem:
            raise TemplateError(f"template: {word} is no text: {problem}") from None
    if word.startswith("`"):
        return word[1:-1]
    if re.fullmatch(r"-?[0-9]{1,18}", word):
        return int(word)
    if re.fullmatch(r"-?\d+\.\d+", word):
        return float(word)
    if word in ("true", "false"):
        return word == "true"
    if word == "nil":
        return None
    if word.startswith("$"):
        name, dot, rest = word.partition(".")
        if name not in names:
            raise TemplateError(f"template: {name} is no variable here")
        return _path(names[name], dot + rest)
    if not word.startswith("."):
        raise TemplateError(f"template: {word} is no function: use {', '.join(sorted(FUNCTIONS))}")
    return _path(data, word)


def _path(value: Any, names: str) -> Any:
    """A missing field is nothing: objects leave out what is empty."""
    for name in names.split("."):
        if name:
            value = value.get(name) if isinstance(value, dict) else None
    return value
