"""What users write after swarmctl's options and in --format: read, or refused as the parser and its tables expect."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swarmd.swarmctl import container_values, mounts, template, values
from swarmd.swarmctl.parser import BadValue
from tests.fuzz.strategies import EXAMPLES, fuzz, words

READERS: tuple[Callable[[str], Any], ...] = (
    *(values.duration, values.size, values.cpus, values.count, values.ratio, values.pair, values.env),
    *(values.port_number, values.published, values.mount, values.ulimit, values.preference, values.network),
    *(values.extra_host, container_values.attached, container_values.exposed, container_values.published),
    *(container_values.device, container_values.gpus, container_values.path_weight, container_values.path_bytes),
    *(container_values.path_count, container_values.swap, container_values.bind, container_values.tmpfs),
    *(container_values.restart, container_values.host_entry, container_values.network),
    *(container_values.health_probe, container_values.time_offset, mounts.mount),
)
TEXTS = words(
    *("80", ":", "/tcp", "-", "8080", "=", ",", "type=bind", "src=/a", "dst=/b", "tmpfs-mode=", "tmpfs-size=", "1m30s"),
    *("nofile", "/dev/null", "rwm", "all", "count=", "device=", '"', "on-failure", "http://", "tcp://", "[", "]", "."),
    *("monotonic=", "64m", "spread=", "name=", "published=", "target=", "127.0.0.1", "::1"),
    longest=8,
)
TEMPLATES = words(
    *(
        "{{",
        "}}",
        ".Name",
        ".Missing.Deep",
        "range",
        "end",
        "if",
        "else",
        "with",
        "json",
        "printf",
        '"%s %d"',
        '"%9.9f"',
    ),
    *("index", "slice", "(", ")", "|", "$x", ":=", ",", " ", "-", "1", "/*", "*/", "pad", "split", "join", "and", "or"),
    longest=16,
)
DATA = {"Name": "web", "List": [1, "two", None], "Map": {"a": {"b": 1}, "c": 2}}


@pytest.mark.parametrize("read", READERS, ids=lambda read: f"{read.__module__.rpartition('.')[2]}.{read.__name__}")
@settings(fuzz, max_examples=max(10, EXAMPLES // 8))
@given(text=TEXTS)
@example("²")
@example("9" * 5000)
@example("9" * 400)
@example("monotonic=" + "9" * 400 + "h")
@example("²:²")
@example("/dev/sda:²")
@example("nofile=²")
@example("nofile=" + "9" * 5000)
@example("on-failure:²")
@example("type=tmpfs,dst=/a,tmpfs-mode=-1")
@example("count=²")
@example("http://[")
@example("http://:99999999")
@example("tcp://x:²")
@example("\udc80")  # what is not UTF-8 in an argument
def test_values(read: Callable[[str], Any], text: str) -> None:
    with contextlib.suppress(BadValue):
        read(text)


@fuzz
@given(TEMPLATES | TEMPLATES.map(lambda text: f"{{{{{text}}}}}"))
@example("{{and}}")
@example("{{or}}")
@example('{{printf "%d" "²"}}')
@example('{{printf "%999999999999d" 5}}')
@example('{{printf "%d" 1e999}}')
@example("{{" + "(" * 5000 + "}}")
@example("{{" + "9" * 5000 + "}}")
@example('{{"\\x"}}')
@example('{{"\\ud800"}}')
@example("{{slice .Name 1.5}}")
@example("{{json .List | len | index .Map}}")
@example("{{join .Name}}")
def test_templates(text: str) -> None:
    with contextlib.suppress(template.TemplateError):
        template.render(text, DATA)


@fuzz
@given(st.text().filter(lambda text: "{{" not in text))
def test_text_without_tags_is_itself(text: str) -> None:
    assert template.render(text, DATA) == text
