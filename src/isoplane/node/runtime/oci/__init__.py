"""Pods as containers: see ``runtime`` for the face, ``layout`` for the files, ``launch`` for how a container comes to be."""

from __future__ import annotations

from isoplane.node.runtime.oci.execute import Execution
from isoplane.node.runtime.oci.runtime import OciRuntime

__all__ = ["Execution", "OciRuntime"]
