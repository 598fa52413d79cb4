"""What users may ask of log drivers, and what of it reaches the shim."""

import re
from pathlib import Path
from typing import cast

import pytest

from swarmd.runtime import log_drivers
from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.images.image import Image
from swarmd.runtime.model import ContainerConfig, LogConfig

ID = "0123456789abcdef" * 4


class Demo:
    id = f"sha256:{'f' * 64}"
    config = ImageConfig(env=("PATH=/bin", "APP_LEVEL=1"), labels={"com.x.team": "a", "com.x.name": "demo"})


def asked(options: dict[str, str], driver: str = "json-file") -> dict[str, object]:
    config = ContainerConfig(
        image="demo:1", labels={"com.x.team": "b"}, env=("APP_MODE=fast",), log=log_drivers.parse(driver, options)
    )
    found = log_drivers.request(ID, "web", Path("/d"), config, cast("Image", Demo()))
    assert found
    return found


@pytest.mark.parametrize(
    ("options", "attributes"),
    [
        ({}, {}),
        ({"labels": "com.x.team, other"}, {"com.x.team": "b"}),
        ({"labels-regex": r"^com\.x"}, {"com.x.team": "b", "com.x.name": "demo"}),
        ({"env": "PATH,APP_MODE"}, {"PATH": "/bin", "APP_MODE": "fast"}),
        ({"env-regex": "^APP", "labels": "com.x.name"}, {"APP_LEVEL": "1", "APP_MODE": "fast", "com.x.name": "demo"}),
        ({"tag": "{{.Name}}/{{ .ID }}"}, {"tag": f"web/{ID[:12]}"}),
        ({"tag": "{{.ImageName}} {{.ImageID}} {{.FullID}}"}, {"tag": f"demo:1 {'f' * 12} {ID}"}),
        ({"tag": "{{.DaemonName}}"}, {"tag": "swarmd"}),
    ],
)
def test_what_each_line_carries(options: dict[str, str], attributes: dict[str, str]) -> None:
    assert asked(options)["attributes"] == attributes


@pytest.mark.parametrize(
    ("options", "room"),
    [
        ({}, 0),
        ({"mode": "blocking"}, 0),
        ({"mode": "non-blocking"}, 1 << 20),
        ({"mode": "non-blocking", "max-buffer-size": "4m"}, 4 << 20),
    ],
)
def test_modes(options: dict[str, str], room: int) -> None:
    assert asked(options)["room"] == room


def test_sizes_and_counts() -> None:
    assert log_drivers.parse("", {"max-size": "1kb", "max-file": "007"}) == LogConfig(max_size=1024, max_file=7)


@pytest.mark.parametrize(
    ("driver", "options", "sentence"),
    [
        ("splunk", {}, "log driver splunk is not supported: use json-file, local"),
        ("json-file", {"syslog-address": "x"}, "log option syslog-address is unknown to log driver json-file"),
        ("none", {"max-size": "1m"}, "log option max-size is unknown to log driver none: it has none"),
        ("", {"mode": "fast"}, "log option mode is 'fast': it is blocking or non-blocking"),
        ("", {"max-buffer-size": "1m"}, "is for mode=non-blocking"),
        ("", {"env-regex": "("}, "log option env-regex is no regular expression"),
        ("", {"tag": "{{.Secret}}"}, "log option tag names {{.Secret}}: there are ID,"),
        ("", {"tag": "{{range .}}"}, "write a field of the container as {{.Name}}"),
        ("", {"compress": "yes"}, "log option compress is 'yes': it is true or false"),
    ],
)
def test_refused_by_a_sentence(driver: str, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(Invalid, match=re.escape(sentence)):
        log_drivers.parse(driver, options)


@pytest.mark.parametrize(
    ("driver", "options", "sentence"),
    [
        ("syslog", {"syslog-address": "127.0.0.1:514"}, "is '127.0.0.1:514': write it as udp://HOST:PORT"),
        ("syslog", {"syslog-address": "udp://h:0"}, "is 'udp://h:0': write it as"),
        ("syslog", {"syslog-address": "udp://h:70000"}, "is 'udp://h:70000': write it as"),
        ("syslog", {"syslog-address": "unix://relative"}, "is 'unix://relative': write it as"),
        ("syslog", {"syslog-facility": "loud"}, "is 'loud': there are kern,"),
        ("syslog", {"syslog-facility": "24"}, "is '24': there are kern,"),
        ("syslog", {"syslog-format": "json"}, "is 'json': it is rfc3164, rfc5424 or rfc5424micro"),
        ("syslog", {"syslog-address": "tcp://h", "syslog-tls-ca-cert": "/x"}, "begins with tcp+tls://"),
        ("syslog", {"max-size": "1m"}, "log option max-size is unknown to log driver syslog"),
        ("journald", {"mode": "blocking", "max-buffer-size": "1m"}, "is for mode=non-blocking"),
    ],
)
def test_receivers_refused_by_a_sentence(driver: str, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(Invalid, match=re.escape(sentence)):
        log_drivers.parse(driver, options)


def test_files_and_receivers_that_this_host_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_drivers, "JOURNAL", tmp_path / "socket")
    monkeypatch.setattr(log_drivers, "_DEV_LOG", str(tmp_path / "log"))
    authority = {"syslog-address": "tcp+tls://h", "syslog-tls-ca-cert": str(tmp_path / "ca")}
    for driver, options in (("journald", {}), ("syslog", {}), ("syslog", authority)):
        with pytest.raises(Invalid, match=f"{tmp_path}.* on this host"):
            log_drivers.check_here(log_drivers.parse(driver, options))
    for name in ("socket", "log", "ca"):
        (tmp_path / name).touch()
    for driver, options in (("journald", {}), ("syslog", {}), ("syslog", authority)):
        log_drivers.check_here(log_drivers.parse(driver, options))


def test_a_receiver_outside_holds_up_nothing_unless_asked_to() -> None:
    address = {"syslog-address": "udp://h"}
    assert asked(address, "syslog")["room"] == 1 << 20
    assert asked(address | {"mode": "blocking"}, "syslog")["room"] == 0
    assert asked(address | {"cache-disabled": "true"}, "syslog")["path"] == ""
    assert asked(address | {"cache-max-size": "1m", "cache-max-file": "2"}, "syslog")["max_size"] == 1 << 20
