"""NetworkPolicy, decided once for every engine.  A pure core: values in, values out.

    manifests ─► snapshot.py ─► model.Cluster ─┬─► verdict.py    the reference: straight from the API's words
                   parse.py                    ├─► explain.py    why, and the smallest change that would allow it
                                               ├─► reach.py, diff.py, check.py
                                               └─► compile.py ─► table.Tables, the one intermediate table
                                                                   ├─► nftables.py   ┐
                                                                   ├─► iptables.py   ├ text that an engine loads
                                                                   └─► openflow.py   ┘

The reference and the table are written independently and proven equal by property tests; each engine's text is read
back and evaluated too.  Applying the text to a host is the fabric's part.
"""
