"""What is wrong with a kubeconfig, as an error that whoever catches it can name without loading TLS and YAML."""

from __future__ import annotations


class KubeconfigProblem(ValueError):
    """The kubeconfig cannot be used; the message says which entry and why."""
