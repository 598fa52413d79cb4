"""The part of Go's templates that --format needs.

    {{.Name}}  {{json .}}  {{range .Mounts}}..{{else}}..{{end}}  {{if .X}}..{{else}}..{{end}}
    index len join upper lower println eq ne not; pipes, "strings", numbers, $ for the top

A template is parsed into a list of nodes, and rendered on plain JSON values.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

_TAG = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
_WORD = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|`[^`]*`|\(|\)|\||[^\s()|]+)""")


class TemplateError(Exception):
    pass


@dataclass
class Text:
    text: str


@dataclass
class Value:
    words: list[str]


@dataclass
class Block:
    """range or if, with what it holds."""

    kind: str
    words: list[str]
    body: list["Node"] = field(default_factory=list)
    other: list["Node"] = field(default_factory=list)


Node = Text | Value | Block


def render(template: str, data: Any) -> str:
    """Return the text; TemplateError names what is wrong with the template, or with using it on this."""
    return _render(parse(template), data, data)


def parse(template: str) -> list[Node]:
    nodes: list[Node] = []
    open_blocks: list[Block] = []
    target, position, trim = nodes, 0, False
    for tag in _TAG.finditer(template):
        text = template[position : tag.start()]
        target.append(Text((text.lstrip() if trim else text).rstrip() if tag[1] else text.lstrip() if trim else text))
        position, trim = tag.end(), bool(tag[3])
        words = _WORD.findall(tag[2])
        head = words[0] if words else ""
        if head in ("range", "if"):
            block = Block(head, words[1:])
            target.append(block)
            open_blocks.append(block)
            target = block.body
        elif head == "else" and open_blocks:
            target = open_blocks[-1].other
        elif head == "end" and open_blocks:
            open_blocks.pop()
            last = open_blocks[-1] if open_blocks else None
            target = nodes if last is None else last.other if last.other else last.body
        elif head in ("", "else", "end"):
            raise TemplateError(f"template: {tag[0]} stands where nothing is open")
        else:
            target.append(Value(words))
    if open_blocks:
        raise TemplateError(f"template: {{{{{open_blocks[-1].kind}}}}} has no {{{{end}}}}")
    if "{{" in template[position:]:
        raise TemplateError("template: {{ has no }}")
    target.append(Text(template[position:].lstrip() if trim else template[position:]))
    return nodes


def _render(nodes: Sequence[Node], data: Any, top: Any) -> str:
    return "".join(_node(node, data, top) for node in nodes)


def _node(node: Node, data: Any, top: Any) -> str:
    if isinstance(node, Text):
        return node.text
    value = _pipeline(node.words, data, top)
    if isinstance(node, Value):
        return shown(value)
    if node.kind == "if":
        return _render(node.body if value else node.other, data, top)
    items = list(value.values()) if isinstance(value, dict) else list(value or ())
    return "".join(_render(node.body, item, top) for item in items) if items else _render(node.other, data, top)


def shown(value: Any) -> str:
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{' '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{shown(item)}' for key, item in sorted(value.items()))}]"
    return str(value)


def _pipeline(words: Sequence[str], data: Any, top: Any) -> Any:
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
        value = _call(stage, data, top, (value,) if number else ())
    return value


def _call(words: list[str], data: Any, top: Any, piped: tuple[Any, ...]) -> Any:
    head = words[0]
    if head in _FUNCTIONS:
        arguments = [*_arguments(words[1:], data, top), *piped]
        try:
            return _FUNCTIONS[head](*arguments)
        except (TypeError, KeyError, IndexError, ValueError) as problem:
            raise TemplateError(f"template: {' '.join(words)}: {problem}") from None
    values = _arguments(words, data, top)
    if len(values) != 1 or piped:
        raise TemplateError(f"template: {head} is no function: use {', '.join(sorted(_FUNCTIONS))}")
    return values[0]


def _arguments(words: Sequence[str], data: Any, top: Any) -> list[Any]:
    values: list[Any] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "(":
            end = _closing(rest)
            values.append(_pipeline(rest[:end], data, top))
            del rest[: end + 1]
        else:
            values.append(_operand(word, data, top))
    return values


def _closing(words: Sequence[str]) -> int:
    depth = 1
    for index, word in enumerate(words):
        depth += (word == "(") - (word == ")")
        if not depth:
            return index
    raise TemplateError("template: ( has no )")


def _operand(word: str, data: Any, top: Any) -> Any:
    if word.startswith('"'):
        return json.loads(word)
    if word.startswith("`"):
        return word[1:-1]
    if re.fullmatch(r"-?\d+", word):
        return int(word)
    if word in ("true", "false"):
        return word == "true"
    if not word.startswith((".", "$")):
        raise TemplateError(f"template: {word} is no function: use {', '.join(sorted(_FUNCTIONS))}")
    value = top if word.startswith("$") else data
    for name in word.lstrip("$").split("."):
        if name:
            value = _field(value, name)
    return value


def _field(value: Any, name: str) -> Any:
    """A missing field is nothing: objects leave out what is empty."""
    return value.get(name) if isinstance(value, dict) else None


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else value[key]
    return value


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "eq": lambda one, *others: one in others,
    "index": _index,
    "join": lambda values, separator: separator.join(map(shown, values or ())),
    "json": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "len": lambda value: len(value or ()),
    "lower": lambda text: text.lower(),
    "ne": lambda one, other: one != other,
    "not": lambda value: not value,
    "println": lambda *values: " ".join(map(shown, values)) + "\n",
    "upper": lambda text: text.upper(),
}
