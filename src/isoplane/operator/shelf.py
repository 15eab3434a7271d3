"""Where ledgers are kept: QuotaLedger objects, read and changed by compare-and-swap."""

from __future__ import annotations

from dataclasses import replace

from isoplane.client.api import Api
from isoplane.objects.errors import AlreadyExists, Conflict, NotFound
from isoplane.operator.kinds import QUOTALEDGERS
from isoplane.operator.ledger import Ledger
from isoplane.operator.record import MAX_BYTES, decode, encode, size


class TooLarge(ValueError):
    """A ledger that would pass its bound: the batch must be smaller."""


class Shelf:
    """The stored ledgers."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def all(self) -> list[Ledger]:
        """Every ledger, as stored now. Raises UnreadableLedger, ApiError."""
        found: list[Ledger] = []
        token = ""
        while True:
            page = await self._api.list(QUOTALEDGERS, limit=100, continue_token=token)
            found += map(decode, page.items)
            token = page.continue_token
            if not token:
                return found

    async def read(self, name: str) -> Ledger:
        """One ledger, as stored now. Raises NotFound, UnreadableLedger."""
        return decode(await self._api.get(QUOTALEDGERS, name))

    async def remove(self, ledger: Ledger) -> None:
        """Delete a ledger that decides nothing, if it is still the one that was read. Raises Conflict, ApiError."""
        try:
            await self._api.delete(QUOTALEDGERS, ledger.name, resource_version=ledger.version)
        except NotFound:
            pass

    async def swap(self, new: Ledger) -> Ledger:
        """Store a ledger where it is still the one that was read. Raises Conflict, TooLarge, ApiError.

        A write whose answer is lost raises Unavailable though it may be stored: read again.
        """
        if (bytes_ := size(new)) > MAX_BYTES:
            raise TooLarge(f"QuotaLedger {new.name} would have {bytes_} bytes of {MAX_BYTES}")
        try:
            if new.version:
                stored = await self._api.update(QUOTALEDGERS, encode(new))
            else:
                stored = await self._api.create(QUOTALEDGERS, encode(new))
        except AlreadyExists as error:
            raise Conflict(str(error)) from error
        except NotFound as error:
            raise Conflict(f"QuotaLedger {new.name} is gone") from error
        return replace(new, version=str(stored["metadata"]["resourceVersion"]))
