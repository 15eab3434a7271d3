"""The wire: bytes in, one verb, bytes out.

listener ─► protocol (TLS peer, time-outs) ─► app (who, what) ─► routes ─► handlers ─► verbs
                                                              ◄─ representation (JSON, Table, metadata only)
"""
