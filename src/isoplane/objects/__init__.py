"""The vocabulary: what a Kubernetes object is, with no idea of where it is stored, served or run.

Objects stay plain dicts and keep fields unknown to us.  Everything here is a pure function or a value.
"""
