"""A server behind kube-apiserver lets the cluster say who asks and whether they may. Here are the forms; asking is the caller's.

The cluster publishes its CAs and its proxy's header names in one ConfigMap; it decides by SubjectAccessReviews.
Source: apiserver's pkg/server/options (DelegatingAuthenticationOptions, DelegatingAuthorizationOptions).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from isoplane.http.authentication import Authentication, Authenticator, ClientCertificates, FrontProxy
from isoplane.http.authorization import Decision
from isoplane.http.peer import Authorities
from isoplane.http.request_info import RequestInfo
from isoplane.http.user import User
from isoplane.objects.metadata import Object

CONFIG = ("kube-system", "extension-apiserver-authentication")
"""Namespace and name of the ConfigMap that every kube-apiserver keeps."""
_RESOURCE_ATTRIBUTES = ("namespace", "verb", "group", "version", "resource", "subresource", "name")


def authentication(data: Mapping[str, str]) -> tuple[Authentication, bytes]:
    """The chain that the ConfigMap's ``data`` describes, and all CAs (PEM) whose certificates the listener must take.

    Raises ValueError for what cannot be read.
    """
    chain: list[Authenticator] = []
    proxies, clients = data.get("requestheader-client-ca-file", ""), data.get("client-ca-file", "")
    if proxies:
        chain.append(
            FrontProxy(
                Authorities(proxies.encode()),
                _names(data, "requestheader-allowed-names"),
                user_headers=_names(data, "requestheader-username-headers"),
                group_headers=_names(data, "requestheader-group-headers"),
                extra_prefixes=_names(data, "requestheader-extra-headers-prefix"),
                uid_headers=_names(data, "requestheader-uid-headers"),
            )
        )
    if clients:
        chain.append(ClientCertificates(Authorities(clients.encode())))
    return Authentication(chain), f"{proxies}\n{clients}".encode()


def access_review(user: User, info: RequestInfo) -> Object:
    """The SubjectAccessReview that asks whether ``user`` may do that."""
    spec: dict[str, Any] = {"user": user.name, "groups": list(user.groups)}
    if user.uid:
        spec["uid"] = user.uid
    if user.extra:
        spec["extra"] = {key: list(values) for key, values in user.extra}
    if info.resource:
        asked = {key: value for key, value in info._asdict().items() if value and key in _RESOURCE_ATTRIBUTES}
        spec["resourceAttributes"] = asked
    else:
        spec["nonResourceAttributes"] = {"path": info.path, "verb": info.verb}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


def decision(review: Object) -> Decision:
    """What the answered review says. Who has no opinion does not allow."""
    status = review.get("status") or {}
    return Decision(bool(status.get("allowed")) and not status.get("denied"), str(status.get("reason") or ""))


def _names(data: Mapping[str, str], key: str) -> list[str]:
    text = data.get(key, "")
    found = orjson.loads(text) if text else []
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"{key}: {text!r} is not a list of names")
    return found
