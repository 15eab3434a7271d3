"""What the protocol adds to the ASGI scope of a request, and nothing else may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Scope = Mapping[str, Any]
CERTIFICATE = "isoplane.certificate"
"""The client's PeerCertificate, or None."""
AUTHENTICATED = "isoplane.authenticated"
"""Where there is no certificate: call it when the request has proven who asks, and the connection is nobody's no longer."""
LOST = "isoplane.lost"
"""Call it with what is to be called when the connection ends before the response does."""
