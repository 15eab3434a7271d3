"""What any server of ours serves with, whatever it serves and wherever its objects are kept.

    listener ─► protocol (TLS, time-outs) ─► an ASGI application made of: body, query, negotiation, request
                                          ◄─ reply, representation (JSON, Table, metadata only), streams

It knows no store, no verbs and no discovery: those are the server's above it.
"""
