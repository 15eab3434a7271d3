"""What the protocol adds to the ASGI scope of a request, and nothing else may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Scope = Mapping[str, Any]
CERTIFICATE = "isoplane.certificate"
"""The client's PeerCertificate, or None."""
LOST = "isoplane.lost"
"""Call it with what is to be called when the connection ends before the response does."""
