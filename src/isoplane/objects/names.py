"""Names and label syntax as Kubernetes checks them. Each function returns a problem as text, or None when it is good.

Source: apimachinery pkg/util/validation.
"""

from __future__ import annotations

import re

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_PORT = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def dns_label(value: str) -> str | None:
    """RFC 1123 label, at most 63 characters: the names of namespaces, containers, volumes."""
    if len(value) <= 63 and _LABEL.fullmatch(value):
        return None
    return (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
        "with an alphanumeric character, at most 63 characters (e.g. 'my-name')"
    )


def dns_subdomain(value: str) -> str | None:
    """RFC 1123 subdomain, at most 253 characters: the names of most objects."""
    if len(value) <= 253 and _SUBDOMAIN.fullmatch(value):
        return None
    return (
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
        "and end with an alphanumeric character, at most 253 characters (e.g. 'example.com')"
    )


def qualified(value: str) -> str | None:
    """A label or annotation key: an optional DNS prefix, a slash, a name of at most 63 characters."""
    prefix, _, name = value.rpartition("/")
    if "/" in value and (not prefix or dns_subdomain(prefix)):
        return "prefix part must be a lowercase RFC 1123 subdomain"
    if not name or len(name) > 63 or not _QUALIFIED.fullmatch(name):
        return (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character, at most 63 characters (e.g. 'MyName' or 'my.name')"
        )
    return None


def label_value(value: str) -> str | None:
    """A label's value: empty or at most 63 qualified characters."""
    if value == "" or (len(value) <= 63 and _QUALIFIED.fullmatch(value)):
        return None
    return (
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
        "and end with an alphanumeric character, at most 63 characters"
    )


def port_name(value: str) -> str | None:
    """An IANA service name: at most 15 characters, at least one letter, no double hyphen."""
    if len(value) <= 15 and _PORT.fullmatch(value) and "--" not in value and any(c.isalpha() for c in value):
        return None
    return "must be at most 15 lower case alphanumeric characters or '-', contain a letter and no '--' (e.g. 'http')"
