"""The four ways to change an object: JSON Patch, merge patch, strategic merge patch and server-side apply.

Each takes the current object and returns a new one; inputs are never changed and nothing is shared with the result.
What a patch must not touch (names, uids, status) is the server's business.
"""

from __future__ import annotations

from isoplane.objects.patch.apply import apply_config, record_update
from isoplane.objects.patch.json_patch import apply_json
from isoplane.objects.patch.merge import apply_merge
from isoplane.objects.patch.strategic import apply_strategic

__all__ = ["apply_config", "apply_json", "apply_merge", "apply_strategic", "record_update"]
