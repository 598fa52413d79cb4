"""The Engine API's JSON of the cluster's objects, read off their descriptors.

A field whose json_name starts with an upper-case letter is public under that name; any other is never rendered and
never accepted.  `decode` refuses what it does not know by its path, so nothing a user asks for is dropped in silence.
The one leniency: Docker's clients send many fields they do not mean ("Isolation": "default", "Secrets": null), and a
field listed in `UNSUPPORTED` may be present as long as it asks for nothing.
"""

import base64
import re
import struct
from calendar import timegm
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from swarmd.proto.errors import Invalid

M = TypeVar("M", bound=Message)

# Fields that Docker has and we have not, and values of them that still ask for nothing.
# null, false, 0, "", [] and {} always do, except in ONLY_NULL, where an empty object is a choice.
UNSUPPORTED: Mapping[str, Mapping[str, tuple[object, ...]]] = {
    "ContainerSpec": {
        "Configs": (),
        "Isolation": ("default",),
        "OpenStdin": (),
        "Secrets": (),
    },
    "Privileges": {"AppArmor": ({"Mode": "default"},), "CredentialSpec": (), "SELinuxContext": ()},
    "Mount": {"ClusterOptions": (), "Consistency": ("default",), "ImageOptions": (), "VolumeOptions": ()},
    "BindOptions": {"ReadOnlyForceRecursive": (), "ReadOnlyNonRecursive": ()},
    "TmpfsOptions": {"Options": ()},
    "Resources": {"GenericResources": ()},
    "ResourceRequirements": {"MemorySwappiness": (-1,), "SwapBytes": ()},
    "TaskSpec": {"NetworkAttachmentSpec": (), "PluginSpec": ()},
    "ServiceMode": {"Global": (), "GlobalJob": (), "ReplicatedJob": ()},
    "CAConfig": {"ExternalCAs": (), "ForceRotate": (), "SigningCACert": (), "SigningCAKey": ()},
    "ClusterSpec": {"EncryptionConfig": (), "Raft": (), "TaskDefaults": ()},
}
ONLY_NULL = frozenset({"Global", "GlobalJob", "ReplicatedJob"})

# Rendered even when empty: clients index these without looking first.
ALWAYS = frozenset({"ForceUpdate", "Index", "Labels", "MaxFailureRatio"})

# Docker spells every enum with '-' but these.
UNDERSCORED = frozenset({"UpdateState"})

_TIMESTAMP = Timestamp.DESCRIPTOR
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64),
}
_LARGEST = {
    FieldDescriptor.CPPTYPE_FLOAT: 3.4028234663852886e38,
    FieldDescriptor.CPPTYPE_DOUBLE: 1.7976931348623157e308,
}


def asks_for_nothing(value: object) -> bool:
    """Whether a value of a field we have not leaves everything as it is: null, 0, false, "", or only such inside."""
    if isinstance(value, dict):
        return all(map(asks_for_nothing, value.values()))
    if isinstance(value, list):
        return all(map(asks_for_nothing, value))
    return not value


# ---------------------------------------------------------------- out


def encode(message: Message) -> dict[str, Any]:
    """The message as the Engine API shows it; a field at its default is left out, but for enums and ALWAYS."""
    return {
        name: _rendered(field, getattr(message, field.name))
        for name, field in _public(message.DESCRIPTOR).items()
        if _is_shown(message, field)
    }


def rfc3339(stamp: Timestamp) -> str:
    """Nanoseconds, UTC: 2026-01-02T03:04:05.000000006Z."""
    whole = datetime.fromtimestamp(stamp.seconds, UTC).replace(tzinfo=None)
    return f"{whole.isoformat()}.{stamp.nanos:09d}Z"


def _is_shown(message: Message, field: FieldDescriptor) -> bool:
    if field.has_presence:
        return message.HasField(field.name)
    return field.json_name in ALWAYS or _is_single_enum(field) or bool(getattr(message, field.name))


def _rendered(field: FieldDescriptor, value: Any) -> Any:
    if _is_map(field):
        return {key: _one(_map_value(field), value[key]) for key in sorted(value)}
    return [_one(field, item) for item in value] if field.is_repeated else _one(field, value)


def _one(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return rfc3339(value) if field.message_type is _TIMESTAMP else encode(value)
    if field.enum_type is not None:
        return _enum_names(field.enum_type).get(value, str(value))
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return _shortest(value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _shortest(value: float) -> float:
    """The shortest decimal that is the same 32-bit float: 0.1, not 0.10000000149."""
    candidates = (float(f"{value:.{digits}g}") for digits in range(6, 10))
    return next((c for c in candidates if struct.pack("f", c) == struct.pack("f", value)), value)


# ---------------------------------------------------------------- in


def decode(message_type: type[M], data: object, path: str = "") -> M:
    """Return the message that the JSON value says; raise Invalid naming the field that cannot be."""
    message = message_type()
    _fill(message, data, path)
    return message


def _fill(message: Message, data: object, path: str) -> None:
    if not isinstance(data, dict):
        raise _wrong(path, "an object", data)
    public = _by_folded_name(message.DESCRIPTOR)
    for name, value in data.items():
        here = f"{path}.{name}" if path else str(name)
        field = public.get(str(name).lower())
        if value is None:
            continue
        if field is None:
            _refuse_if_asked(message.DESCRIPTOR.name, name, value, here)
        else:
            _set(message, field, value, here)


def _refuse_if_asked(message: str, name: str, value: object, path: str) -> None:
    harmless = UNSUPPORTED.get(message, {}).get(name)
    if harmless is not None and value in harmless:
        return
    if harmless is None or name in ONLY_NULL or not asks_for_nothing(value):
        raise Invalid(f"unknown or unsupported field {path}")


def _set(message: Message, field: FieldDescriptor, value: object, path: str) -> None:
    if _is_map(field):
        _set_map(getattr(message, field.name), _map_value(field), value, path)
    elif field.is_repeated:
        if not isinstance(value, list):
            raise _wrong(path, "a list", value)
        _extend(getattr(message, field.name), field, value, path)
    elif field.message_type is not None:
        other = message.WhichOneof(field.containing_oneof.name) if field.containing_oneof else None
        if other not in (None, field.name):
            raise Invalid(f"field {path} cannot be combined with {message.DESCRIPTOR.fields_by_name[other].json_name}")
        part = getattr(message, field.name)
        part.SetInParent()
        _fill_part(part, value, path)
    elif not (field.enum_type is not None and value == ""):  # an enum left empty is left alone
        setattr(message, field.name, _scalar(field, value, path))


def _set_map(target: Any, field: FieldDescriptor, value: object, path: str) -> None:
    if not isinstance(value, dict):
        raise _wrong(path, "an object", value)
    for key, item in value.items():
        target[key] = _scalar(field, item, f"{path}.{key}")


def _extend(target: Any, field: FieldDescriptor, items: list[object], path: str) -> None:
    for index, item in enumerate(items):
        here = f"{path}[{index}]"
        if field.message_type is not None:
            _fill_part(target.add(), item, here)
        else:
            target.append(_scalar(field, item, here))


def _fill_part(part: Message, value: object, path: str) -> None:
    if isinstance(part, Timestamp):
        part.CopyFrom(parse_rfc3339(value, path))
    else:
        _fill(part, value, path)


def parse_rfc3339(value: object, path: str) -> Timestamp:
    match = _RFC3339.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise _wrong(path, "a time such as 2026-01-02T03:04:05Z", value)
    try:
        when = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
        seconds = timegm(when.utctimetuple())
    except (ValueError, OverflowError):
        raise Invalid(f"field {path} is no date: {value}") from None
    return Timestamp(seconds=seconds, nanos=int((match[2] or "0").ljust(9, "0")))


def _scalar(field: FieldDescriptor, value: object, path: str) -> object:
    kind = field.cpp_type
    if kind in _INTEGERS:
        low, end = _INTEGERS[kind]
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong(path, "a whole number", value)
        if not low <= value < end:
            raise Invalid(f"field {path} is out of range: {value}")
        return value
    return _PARSERS[kind](field, value, path)


def _number(field: FieldDescriptor, value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(path, "a number", value)
    if not abs(value) <= _LARGEST[field.cpp_type]:
        raise Invalid(f"field {path} is out of range")
    return float(value)


def _flag(_field: FieldDescriptor, value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(path, "true or false", value)
    return value


def _text(field: FieldDescriptor, value: object, path: str) -> str | bytes:
    if not isinstance(value, str):
        raise _wrong(path, "a string", value)
    if field.type != FieldDescriptor.TYPE_BYTES:
        return value
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:  # also for letters beyond ASCII
        raise _wrong(path, "base64", value) from None


def _choice(field: FieldDescriptor, value: object, path: str) -> int:
    numbers = {text: number for number, text in _enum_names(field.enum_type).items()}
    if not isinstance(value, str) or value not in numbers:
        raise Invalid(f"field {path} must be one of {', '.join(numbers)}, not {_said(value)}")
    return numbers[value]


_PARSERS: Mapping[int, Callable[[FieldDescriptor, object, str], object]] = {
    FieldDescriptor.CPPTYPE_BOOL: _flag,
    FieldDescriptor.CPPTYPE_ENUM: _choice,
    FieldDescriptor.CPPTYPE_STRING: _text,
    **dict.fromkeys(_LARGEST, _number),
}


def _wrong(path: str, wanted: str, value: object) -> Invalid:
    where = f"field {path}" if path else "the body"
    return Invalid(f"{where} must be {wanted}, not {_said(value)}")


def _said(value: object) -> str:
    names = {dict: "an object", list: "a list", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value)) or repr(str(value)[:60])


# ---------------------------------------------------------------- descriptors


@cache
def _public(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    return {field.json_name: field for field in descriptor.fields if field.json_name[:1].isupper()}


@cache
def _by_folded_name(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """Case does not count on the way in: docker-py writes Mode.replicated."""
    return {name.lower(): field for name, field in _public(descriptor).items()}


@cache
def _enum_names(enum: Any) -> dict[int, str]:
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
    between = "_" if enum.name in UNDERSCORED else "-"
    return {value.number: value.name.removeprefix(prefix).lower().replace("_", between) for value in enum.values}


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _map_value(field: FieldDescriptor) -> FieldDescriptor:
    assert field.message_type is not None
    return field.message_type.fields_by_name["value"]


def _is_single_enum(field: FieldDescriptor) -> bool:
    return field.enum_type is not None and not field.is_repeated
