"""The durable state of the plane: SQLite on disk, a read model in memory, a log of changes between them.

    transact(fn) ─► evaluate on the loop (committed + pending) ─► batch ─► writer thread: one SQLite commit
                 ─► apply to the read model ─► publish to watchers ─► resolve the awaiting callers

It knows objects as bytes with an identity, a revision and indexed fields; what a kind means is the server's affair.
"""

from isoplane.store.record import Record
from isoplane.store.store import Store
from isoplane.store.transaction import Transaction
from isoplane.store.view import ReadView

__all__ = ["ReadView", "Record", "Store", "Transaction"]
