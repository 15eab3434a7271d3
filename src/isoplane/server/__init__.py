"""The Kubernetes API: from HTTP (or a call in the same process) to one store transaction, and back.

endpoints/   HTTP: routes, discovery, one handler a verb (what serves it: `isoplane.http`)
verbs        what create, update, patch, delete, list and watch mean, whoever asks
admission    who may look at a write before it happens, and inside its transaction
"""
