"""Documents that hosts, images and users bring: seccomp profiles, OCI configs, CDI specs, passwd and group files."""

import contextlib
import copy
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swarmd.runtime import cdi, seccomp
from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.oci import config as oci
from swarmd.runtime.stages import privileges
from tests.fuzz.strategies import fuzz, json_values, mutated, words

RULE = {
    "names": ["read", "write"],
    "action": "SCMP_ACT_ERRNO",
    "errnoRet": 5,
    "args": [
        {"index": 1, "value": 7, "valueTwo": 9, "op": "SCMP_CMP_MASKED_EQ"},
        {"index": 2, "value": 2**40, "op": "SCMP_CMP_LT"},
    ],
    "includes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["amd64"], "minKernel": "4.8"},
    "excludes": {"caps": ["CAP_CHOWN"]},
}
PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "defaultErrnoRet": 1,
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [{**RULE, "includes": {}, "excludes": {}}, RULE],
}
CONFIG = {
    "ociVersion": "1.1.0",
    "root": {"path": "rootfs"},
    "process": {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
    "linux": {
        "namespaces": [{"type": "pid"}],
        "resources": {
            "cpu": {"shares": 5},
            "memory": {"limit": 7},
            "blockIO": {"throttleReadBpsDevice": [{"major": 1, "minor": 2, "rate": 3}]},
            "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 3}],
        },
    },
    "annotations": {"a": "b"},
}
SPEC = {
    "cdiVersion": "0.8.0",
    "kind": "nvidia.com/gpu",
    "containerEdits": {"env": ["A=b"]},
    "devices": [
        {
            "name": "0",
            "containerEdits": {
                "deviceNodes": [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}],
                "mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["ro"]}],
                "hooks": [{"hookName": "createContainer", "path": "/bin/true", "args": ["true"]}],
                "additionalGids": [5],
            },
        }
    ],
}


@fuzz
@given(mutated(PROFILE) | json_values)
@example({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{}]})
@example({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 2**40})
def test_a_seccomp_profile_is_refused_or_compiled_to_what_the_kernel_takes(profile: Any) -> None:
    try:
        program = seccomp.compile_profile(json.dumps(profile), ["CAP_SYS_ADMIN"], arch="amd64", kernel="6.1.0")
    except RuntimeFault:
        return
    acceptable(program)


@fuzz
@given(words("{", "}", "[", "]", '"defaultAction"', ":", '"SCMP_ACT_ALLOW"', ","))
@example("[" * 100_000)
def test_text_that_is_no_profile(text: str) -> None:
    with contextlib.suppress(RuntimeFault):
        acceptable(seccomp.compile_profile(text, [], arch="amd64", kernel="6.1.0"))


def acceptable(program: bytes) -> None:
    """What seccomp_check_filter and bpf_check_classic demand: known instructions, jumps inside, a return at the end."""
    instructions = list(struct.iter_unpack("=HBBI", program))
    assert 0 < len(instructions) <= 4096
    for at, (code, yes, no, k) in enumerate(instructions):
        left = len(instructions) - at - 1
        assert code in (0x20, 0x54, 0x06, 0x05, 0x15, 0x25, 0x35), hex(code)
        if code == 0x20:
            assert k % 4 == 0 and k < 64
        if code == 0x05:
            assert k < left
        if code in (0x15, 0x25, 0x35):
            assert yes < left and no < left
    assert instructions[-1][0] == 0x06


@fuzz
@given(mutated(CONFIG) | json_values)
@example({**CONFIG, "process": []})
@example({**CONFIG, "linux": None})
@example({**CONFIG, "root": {}})
def test_an_oci_config_is_read_or_refused(tmp_path: Path, document: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(document))
    try:
        found = oci.load(tmp_path)
        resources = found["linux"].get("resources") or {}
        oci.limits(resources)
        oci.device_rules(resources)
    except RuntimeFault:
        return
    assert Path(found["root"]["path"]).is_absolute()


@fuzz
@given(mutated(SPEC) | json_values)
@example({**SPEC, "devices": [{}]})
@example({**SPEC, "devices": 5})
def test_a_cdi_spec_is_applied_or_refused(tmp_path: Path, spec: Any) -> None:
    (tmp_path / "vendor.json").write_text(json.dumps(spec))
    document: dict[str, Any] = copy.deepcopy(
        {"process": {"env": [], "user": {}}, "linux": {"devices": []}, "mounts": []}
    )
    try:
        found = cdi.edits(["nvidia.com/gpu=0"], [tmp_path])
        cdi.rules(found)
        cdi.apply(document, found)
        cdi.gpus(1, (), [tmp_path])
    except RuntimeFault:
        return
    json.dumps(document)


@fuzz
@given(
    words("root", ":", "x", "0", "1000", "\n", "/root", "/bin/sh", "::", longest=30),
    words("staff", ":", "x", "50", "\n", "root", ",", longest=30),
    st.sampled_from(["", "root", "0", "staff", "1000:50", "²", "root:staff", ":", "0:²", "99999999999"]),
)
@example("u:x:²:0::/:/bin/sh", "", "u")
@example("u:x:99999999999:0::/:/bin/sh", "", "u")
@example("u:x:5:0::/:/bin/sh", "g:x:²:u", "u")
def test_passwd_and_group_files(tmp_path: Path, passwd: str, group: str, user: str) -> None:
    files = {"/etc/passwd": tmp_path / "passwd", "/etc/group": tmp_path / "group"}
    files["/etc/passwd"].write_text(passwd, errors="surrogatepass")
    files["/etc/group"].write_text(group, errors="surrogatepass")
    really = os.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(privileges.os, "open", lambda path, *rest: really(files.get(path, path), *rest))
        try:
            who = privileges.find_identity(user, ["staff"])
        except privileges.StepError:
            return
    assert all(0 <= number < 2**32 - 1 for number in (who.uid, who.gid, *who.groups))
