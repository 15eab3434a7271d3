"""What any server of ours serves with, whatever it serves and wherever its objects are kept.

    listener ─► acceptor (TLS) ─► protocol (limits) ─► app ─► a Service of the server's own: what there is, and its answers
                                                       │
                request_info (what), authentication (who), authorization (may they), request_metrics

A service reads with request, query, body and negotiation, and answers with reply, representation (JSON, Table, metadata only) and
streaming (logs, watches).  ``delegated`` is for servers behind kube-apiserver.  No store, verbs or discovery are here.
"""
