"""What the Kubernetes API answers over HTTP: one request becomes one verb.

app (who, what) ─► routes ─► handlers ─► verbs; discovery and documents say what there is; exec and logs reach the node
"""
