"""ConfigMap and Secret: keys, sizes, what a Secret's type needs, and immutability."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from isoplane.objects.rules.report import Report

SIZE_LIMIT = 1024 * 1024
"""Bytes of data in one ConfigMap or Secret."""
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_KEY_TEXT = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_NEEDED_KEYS = {
    "kubernetes.io/dockercfg": ".dockercfg",
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
    "kubernetes.io/ssh-auth": "ssh-privatekey",
}
_TYPED_JSON = ("kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson")


def check_configmap(obj: dict[str, Any], report: Report) -> None:
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    _keys("data", data, report)
    _keys("binaryData", binary, report)
    for key in data.keys() & binary.keys():
        report.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    decoded = _decode("binaryData", binary, report)
    size = sum(len((value or "").encode("utf-8", "surrogatepass")) for value in data.values())
    if size + sum(map(len, decoded.values())) > SIZE_LIMIT:
        report.too_long("", SIZE_LIMIT)


def check_configmap_update(obj: dict[str, Any], old: dict[str, Any], report: Report) -> None:
    if old.get("immutable"):
        _frozen(obj, old, ("data", "binaryData"), report)


def check_secret(obj: dict[str, Any], report: Report) -> None:
    data = obj.get("data") or {}
    _keys("data", data, report)
    decoded = _decode("data", data, report)
    if sum(map(len, decoded.values())) > SIZE_LIMIT:
        report.too_long("data", SIZE_LIMIT)
    kind = obj.get("type") or "Opaque"
    if needed := _NEEDED_KEYS.get(kind):
        if needed not in data:
            report.required(f"data[{needed}]")
        elif kind in _TYPED_JSON and not _is_json_object(decoded.get(needed, b"")):
            report.invalid(f"data[{needed}]", "<secret contents redacted>", "must be a JSON object")
    elif kind == "kubernetes.io/tls":
        for key in ("tls.crt", "tls.key"):
            if key not in data:
                report.required(f"data[{key}]")
    elif kind == "kubernetes.io/basic-auth":
        if "username" not in data and "password" not in data:
            report.required("data[username]")
            report.required("data[password]")
    elif kind == "kubernetes.io/service-account-token":
        annotations = (obj.get("metadata") or {}).get("annotations") or {}
        if not annotations.get("kubernetes.io/service-account.name"):
            report.required("metadata.annotations[kubernetes.io/service-account.name]")


def check_secret_update(obj: dict[str, Any], old: dict[str, Any], report: Report) -> None:
    report.immutable("type", obj.get("type") or "Opaque", old.get("type") or "Opaque")
    if old.get("immutable"):
        _frozen(obj, old, ("data",), report)


def _frozen(obj: dict[str, Any], old: dict[str, Any], fields: tuple[str, ...], report: Report) -> None:
    if not obj.get("immutable"):
        report.forbidden("immutable", "field is immutable when `immutable` is set")
    for field in fields:
        if (obj.get(field) or {}) != (old.get(field) or {}):
            report.forbidden(field, "field is immutable when `immutable` is set")


def _keys(path: str, data: dict[str, Any], report: Report) -> None:
    for key in data:
        where = f"{path}[{key}]"
        if len(key) > 253:
            report.invalid(where, key, "must be no more than 253 characters")
        elif not _KEY.fullmatch(key):
            report.invalid(where, key, _KEY_TEXT)
        elif key == "." or key.startswith(".."):
            report.invalid(where, key, "must not be '.' and must not start with '..'")


def _decode(path: str, data: dict[str, Any], report: Report) -> dict[str, bytes]:
    decoded = {}
    for key, value in data.items():
        try:
            decoded[key] = base64.b64decode(value or "", validate=True)
        except (binascii.Error, ValueError):
            report.invalid(f"{path}[{key}]", "<contents redacted>", "must be base64 encoded")
    return decoded


def _is_json_object(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
