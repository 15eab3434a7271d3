"""Who asks? A chain of authenticators, each for one kind of proof; who shows none is anonymous.

An authenticator says what it can at once (``known``) and the rest when it has asked somebody (``ask``): a token's issuer, another
API server.  The order is upstream's: front proxy, client certificate, tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol
from urllib.parse import unquote

from isoplane.http.peer import Authorities, PeerCertificate
from isoplane.http.user import ANONYMOUS, User
from isoplane.objects.errors import Unauthorized

Headers = Iterable[tuple[bytes, bytes]]
"""As ASGI has them: names in lower case."""


class Authenticator(Protocol):
    """One kind of proof. Both methods return None when there is no proof of this kind, and raise Unauthorized when it is bad."""

    def known(self, certificate: PeerCertificate | None, headers: Headers) -> User | None:
        """Who it is, as far as that is known without waiting."""
        ...

    async def ask(self, certificate: PeerCertificate | None, headers: Headers) -> User | None:
        """Who it is; asked only when nobody in the chain knew."""
        ...


class Authentication:
    """The chain. A proof that is bad does not hide a good one of another kind."""

    def __init__(self, authenticators: Sequence[Authenticator]) -> None:
        self._authenticators = tuple(authenticators)

    def known(self, certificate: PeerCertificate | None, headers: Headers) -> User | None:
        """Who it is, as far as that is known without waiting; None: ask."""
        for authenticator in self._authenticators:
            try:
                user = authenticator.known(certificate, headers)
            except Unauthorized:
                continue  # said again, and then told, by ``ask``
            if user is not None:
                return user.authenticated()
        return None

    async def ask(self, certificate: PeerCertificate | None, headers: Headers) -> User:
        """Who it is, at last the anonymous user. Raises Unauthorized for proof that nobody takes."""
        bad: Unauthorized | None = None
        for authenticator in self._authenticators:
            try:
                user = authenticator.known(certificate, headers) or await authenticator.ask(certificate, headers)
            except Unauthorized as error:
                bad = bad or error
                continue
            if user is not None:
                return user.authenticated()
        if bad is not None:
            raise bad
        return ANONYMOUS


class ClientCertificates:
    """The client's own certificate: common name and organizations are user and groups."""

    def __init__(self, authorities: Authorities) -> None:
        self._authorities = authorities

    def known(self, certificate: PeerCertificate | None, headers: Headers) -> User | None:
        if certificate is None or not certificate.issued_by(self._authorities):
            return None
        return certificate.user

    async def ask(self, certificate: PeerCertificate | None, headers: Headers) -> User | None:
        return None


class FrontProxy:
    """A proxy that has authenticated the client and says in headers who it is: how kube-apiserver asks an aggregated API.

    It is believed for its certificate alone: one of ``authorities`` (who issue to proxies and to nobody else) and, unless
    ``names`` is empty, with one of these common names.  The header names are those that the proxy is configured with.
    Source: apiserver's pkg/authentication/request/headerrequest.
    """

    def __init__(
        self,
        authorities: Authorities,
        names: Collection[str] = (),
        *,
        user_headers: Sequence[str] = ("X-Remote-User",),
        group_headers: Sequence[str] = ("X-Remote-Group",),
        extra_prefixes: Sequence[str] = ("X-Remote-Extra-",),
        uid_headers: Sequence[str] = ("X-Remote-Uid",),
    ) -> None:
        self._authorities = authorities
        self._names = frozenset(names)
        self._users, self._groups, self._extras, self._uids = (
            tuple(name.lower().encode() for name in given)
            for given in (user_headers, group_headers, extra_prefixes, uid_headers)
        )

    def known(self, certificate: PeerCertificate | None, headers: Headers) -> User | None:
        if certificate is None or not certificate.issued_by(self._authorities):
            return None
        name = _first(headers, self._users)
        if not name:
            return None
        if self._names and certificate.common_name not in self._names:
            raise Unauthorized(f"{certificate.common_name} is no proxy that may say who asks")
        groups = tuple(_text(value) for key in self._groups for header, value in headers if header == key)
        return User(name, groups, _first(headers, self._uids), self._extra(headers))

    async def ask(self, certificate: PeerCertificate | None, headers: Headers) -> User | None:
        return None

    def _extra(self, headers: Headers) -> tuple[tuple[str, tuple[str, ...]], ...]:
        found: dict[str, tuple[str, ...]] = {}
        for header, value in headers:
            for prefix in self._extras:
                if header.startswith(prefix):
                    key = unquote(_text(header[len(prefix) :])).lower()
                    found[key] = (*found.get(key, ()), _text(value))
        return tuple(sorted(found.items()))


def _first(headers: Headers, names: Iterable[bytes]) -> str:
    """The first value that is not empty, by the order of the names."""
    return next((_text(value) for name in names for header, value in headers if header == name and value), "")


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Unauthorized("the headers that say who asks are not UTF-8") from None
