"""Every error that an API client can see.

    ApiError                      has a code, a reason and causes; renders itself as a Kubernetes Status
    ├── BadRequest            400  the request cannot be read
    ├── Unauthorized          401  nobody knows who you are
    ├── Forbidden             403  known, and not allowed (quota, RBAC, policy)
    │   └── QuotaExceeded     403  the quota's own refusal
    ├── NotFound              404
    ├── MethodNotAllowed      405
    ├── NotAcceptable         406
    ├── AlreadyExists         409
    ├── Conflict              409  somebody else wrote first, or a precondition does not hold
    ├── Expired               410  the resourceVersion was compacted
    ├── TooLarge              413
    ├── UnsupportedMediaType  415
    ├── Invalid               422  readable, and wrong; one cause a field
    ├── TooManyRequests       429
    ├── Internal              500
    ├── Unavailable           503
    └── InsufficientStorage   507  the disk is full; nothing was written

The server turns them into responses, the HTTP client turns responses back into them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that is wrong: ``field`` is a path such as ``spec.containers[0].image``."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    def to_dict(self) -> dict[str, str]:
        return {"reason": self.reason, "message": self.message, "field": self.field}


class ApiError(Exception):
    """Base of all API errors. ``details`` follows metav1.StatusDetails (name, group, kind, causes…)."""

    code = 500
    reason = "InternalError"

    def __init__(self, message: str, *, causes: Iterable[Cause] = (), details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.causes = tuple(causes)
        self.details = dict(details or {})

    def to_status(self) -> dict[str, Any]:
        """The metav1.Status object that tells a client what, where and why."""
        details = dict(self.details)
        if self.causes:
            details["causes"] = [cause.to_dict() for cause in self.causes]
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if details or self.code == NotFound.code:  # kubectl reads them of every NotFound, there or not
            status["details"] = details
        return status


class BadRequest(ApiError):
    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    code, reason = 401, "Unauthorized"


class Forbidden(ApiError):
    code, reason = 403, "Forbidden"


class QuotaExceeded(Forbidden):
    """A quota refused the request; the message starts with ``exceeded quota:`` as Kubernetes' own does."""


class NotFound(ApiError):
    code, reason = 404, "NotFound"


class MethodNotAllowed(ApiError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(ApiError):
    code, reason = 406, "NotAcceptable"


class AlreadyExists(ApiError):
    code, reason = 409, "AlreadyExists"


class Conflict(ApiError):
    code, reason = 409, "Conflict"


class Expired(ApiError):
    code, reason = 410, "Expired"


class TooLarge(ApiError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    code, reason = 422, "Invalid"


class TooManyRequests(ApiError):
    code, reason = 429, "TooManyRequests"


class Internal(ApiError):
    code, reason = 500, "InternalError"


class Unavailable(ApiError):
    code, reason = 503, "ServiceUnavailable"


class InsufficientStorage(ApiError):
    code, reason = 507, "InsufficientStorage"


_BY_REASON: dict[str, type[ApiError]] = {
    cls.reason: cls
    for cls in (
        BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, AlreadyExists, Conflict, Expired,
        TooLarge, UnsupportedMediaType, Invalid, TooManyRequests, Internal, Unavailable, InsufficientStorage,
    )
}  # fmt: skip
_BY_REASON["Gone"] = Expired
_BY_CODE: dict[int, type[ApiError]] = {cls.code: cls for cls in reversed(list(_BY_REASON.values()))}


def from_status(status: Mapping[str, Any]) -> ApiError:
    """The error that a received Status object stands for. Unknown reasons fall back on the code, then on Internal."""
    cls = _BY_REASON.get(status.get("reason", "")) or _BY_CODE.get(int(status.get("code") or 500)) or Internal
    message = str(status.get("message") or "")
    if cls is Forbidden and "exceeded quota" in message:
        cls = QuotaExceeded
    details = dict(status.get("details") or {})
    causes = [
        Cause(str(c.get("field", "")), str(c.get("message", "")), str(c.get("reason", "")))
        for c in details.pop("causes", None) or ()
    ]
    return cls(message, causes=causes, details=details)
