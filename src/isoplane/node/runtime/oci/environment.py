"""A container's environment and command line, resolved as the kubelet does. Pure: values in, values out.

Sources, the later wins: the image, envFrom, env.  ``$(NAME)`` in a value, a command or an argument stands for what was
defined before; ``$$`` escapes.  Source: kubernetes third_party/forked/golang/expansion, pkg/kubelet/kubelet_pods.go.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isoplane.node.runtime.protocol import Materials, RuntimeFailure, RuntimeReason
from isoplane.objects import quantity
from isoplane.workload.shape import Unit, Workload

MAX_STRING = 128 << 10
"""Bytes of one expanded string: Linux's MAX_ARG_STRLEN, so that nothing is lost by the bound."""
MAX_STRINGS = 6 << 20
"""Bytes of an environment or of a command line: what Linux accepts at most, whatever the stack's limit."""
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a container may be told of itself and its host."""

    workload: Workload
    materials: Materials
    addresses: tuple[str, ...] = ()
    """Its own, one a family, the primary first."""
    host_cpu: int = 0
    """Millicores, for a limit that was not set."""
    host_memory: int = 0
    """Bytes, likewise."""
    units: Mapping[str, Unit] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The primary address; '' without any."""
        return self.addresses[0] if self.addresses else ""


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace ``$(NAME)``; an unknown name stays as it is written. Raises RuntimeFailure beyond MAX_STRING bytes."""
    found: list[str] = []
    size = at = 0
    closing = True
    """Whether a closing parenthesis may still follow: looked for once, so that the time stays linear."""

    def put(piece: str) -> None:
        nonlocal size
        size += len(piece.encode(errors="surrogateescape"))
        if size > MAX_STRING:
            raise missing(f"{text[:60]!r}… expands to more than {MAX_STRING >> 10} KiB, which no program can be given")
        found.append(piece)

    while (sign := text.find("$", at)) >= 0 and sign + 1 < len(text):
        put(text[at:sign])
        following, at = text[sign + 1], sign + 2
        end = text.find(")", at) if following == "(" and closing else -1
        if following == "$":
            put("$")
        elif end >= 0:
            name, at = text[at:end], end + 1
            put(values.get(name, f"$({name})"))
        else:
            closing = closing and following != "("
            put("$" + following)
    put(text[at:])
    return "".join(found)


def _counted(total: int, *words: str) -> int:
    """``total`` and these. Raises RuntimeFailure when it is more than the kernel hands to any program."""
    total += sum(len(word.encode(errors="surrogateescape")) + 1 for word in words)
    if total > MAX_STRINGS:
        raise missing(f"the environment or the command line is longer than {MAX_STRINGS >> 20} MiB in all")
    return total


def command_line(
    recipe: Mapping[str, Any], entrypoint: Sequence[str], cmd: Sequence[str], values: Mapping[str, str]
) -> list[str]:
    """command replaces the image's entrypoint and drops its cmd; args replace its cmd."""
    command, args = recipe.get("command"), recipe.get("args")
    if command:
        words = [*command, *(args or ())]
    elif args:
        words = [*entrypoint, *args]
    else:
        return [*entrypoint, *cmd]
    expanded: list[str] = []
    total = 0
    for word in words:
        expanded.append(expand(str(word), values))
        total = _counted(total, expanded[-1])
    return expanded


def environment(unit: Unit, image_env: Sequence[str], facts: Facts) -> dict[str, str]:
    """Name → value. Raises RuntimeFailure (CreateContainerConfigError) naming the object or field that is missing."""
    values: dict[str, str] = {}
    for entry in image_env:
        name, _, value = entry.partition("=")
        values[name] = value
    values.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    values["HOSTNAME"] = facts.workload.hostname
    for source in unit.recipe.get("envFrom") or ():
        values.update(_all_of(source, facts))
    total = _counted(0, *values.keys(), *values.values())
    for entry in unit.recipe.get("env") or ():
        name = str(entry.get("name", ""))
        if "value" in entry and entry.get("valueFrom") is None:
            values[name] = expand(str(entry["value"] or ""), values)
        elif (origin := entry.get("valueFrom")) is not None:
            found = _value_from(unit, name, origin, facts)
            if found is not None:
                values[name] = found
        else:
            values[name] = ""
        total = _counted(total, name, values.get(name, ""))
    return values


def _all_of(source: Mapping[str, Any], facts: Facts) -> dict[str, str]:
    prefix = str(source.get("prefix") or "")
    if (reference := source.get("configMapRef")) is not None:
        found = object_data(facts.materials, "configmaps", reference, bool(reference.get("optional")))
    elif (reference := source.get("secretRef")) is not None:
        found = object_data(facts.materials, "secrets", reference, bool(reference.get("optional")))
    else:
        return {}
    # Environment entries are text: what is not UTF-8 is handed on byte by byte.
    return {prefix + key: value.decode(errors="surrogateescape") for key, value in (found or {}).items()}


def _value_from(unit: Unit, name: str, origin: Mapping[str, Any], facts: Facts) -> str | None:
    for member, plural in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
        if (reference := origin.get(member)) is None:
            continue
        optional = bool(reference.get("optional"))
        data = object_data(facts.materials, plural, reference, optional)
        key = str(reference.get("key", ""))
        if data is None or (key not in data and optional):
            return None
        if key not in data:
            raise missing(f"environment variable {name}: {plural[:-1]} {reference.get('name')} has no key {key!r}")
        return data[key].decode(errors="surrogateescape")
    if (field_ref := origin.get("fieldRef")) is not None:
        return field_value(str(field_ref.get("fieldPath", "")), facts)
    if (resource := origin.get("resourceFieldRef")) is not None:
        return resource_value(unit, resource, facts)
    raise missing(f"environment variable {name}: valueFrom names no source that is known")


def missing(message: str) -> RuntimeFailure:
    """What keeps a container from being configured."""
    return RuntimeFailure(RuntimeReason.CREATE_CONFIG, message)


def object_data(
    materials: Materials, plural: str, reference: Mapping[str, Any], optional: bool
) -> dict[str, bytes] | None:
    """The entries of a ConfigMap or Secret; None when it is absent and optional."""
    name = str(reference.get("name") or reference.get("secretName") or "")
    found = materials.objects.get(f"{plural}/{name}")
    if found is None:
        if optional:
            return None
        raise missing(f'{plural[:-1]} "{name}" not found')
    data: dict[str, bytes] = {}
    try:
        if plural == "secrets":
            data.update((key, base64.b64decode(value or "")) for key, value in (found.get("data") or {}).items())
            data.update((key, str(value).encode()) for key, value in (found.get("stringData") or {}).items())
        else:
            data.update((key, str(value).encode()) for key, value in (found.get("data") or {}).items())
            data.update((key, base64.b64decode(value or "")) for key, value in (found.get("binaryData") or {}).items())
    except (binascii.Error, ValueError, TypeError) as error:
        raise missing(f'{plural[:-1]} "{name}" holds something that is not base64: {error}') from None
    return data


def field_value(path: str, facts: Facts) -> str:
    """A downward API field."""
    workload = facts.workload
    plain = {
        "metadata.name": workload.name,
        "metadata.namespace": workload.namespace,
        "metadata.uid": workload.uid,
        "spec.nodeName": workload.node or facts.materials.node_name,
        "spec.serviceAccountName": workload.service_account,
        "status.podIP": facts.address,
        "status.podIPs": ",".join(facts.addresses),
        "status.hostIP": "".join(facts.materials.node_addresses[:1]),
        "status.hostIPs": ",".join(facts.materials.node_addresses),
    }
    if path in plain:
        return plain[path]
    collections = {"labels": workload.labels, "annotations": workload.annotations}
    if match := _SUBSCRIPT.fullmatch(path):
        return str(collections[match.group(1)].get(match.group(2), ""))
    kind = path.removeprefix("metadata.")
    if path.startswith("metadata.") and kind in collections:
        return "\n".join(f'{key}="{_escape(value)}"' for key, value in sorted(collections[kind].items()))
    raise missing(f"{path!r} is not a field that a container can be told")


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_value(unit: Unit, reference: Mapping[str, Any], facts: Facts) -> str:
    """A container's own request or limit, in units of the divisor, rounded up."""
    subject = facts.units.get(str(reference.get("containerName") or unit.name), unit)
    name = str(reference.get("resource", ""))
    amounts = {
        "limits.cpu": subject.cpu_limit or facts.host_cpu,
        "limits.memory": subject.memory_limit or facts.host_memory,
        "requests.cpu": subject.cpu_request,
        "requests.memory": subject.memory_request,
    }
    if name not in amounts:
        raise missing(f"{name!r} is not a resource that a container can be told: limits or requests of cpu or memory")
    divisor = str(reference.get("divisor") or "0")
    try:
        unit_size = quantity.parse(divisor) or quantity.parse("1")
    except ValueError as error:
        raise missing(f"divisor of {name}: {error}") from None
    if name.endswith(".cpu"):
        unit_size *= 1000
    return str(-int(-(amounts[name] / unit_size) // 1))
