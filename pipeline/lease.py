"""One driver at a time on an output: a courtesy, since two waste work and can do no harm.

On local disks the driver locks the output's folder, and the lock ends with its process, however
that ends; `_lease.json` says whose it is. Elsewhere it writes that file anew three times a period,
and who finds another's watches it for a period by its own clock: clocks are never compared. Trap: a
driver that stands still longer than that loses its lease; it finds out at its next renewal, and stops.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.errors import ExistsError, LeaseError, NotFoundError, StoreError
from pipeline.stopping import Stop
from pipeline.store import Store, open_store

LEASE_PATH = "_lease.json"

LOOKS = 10
"""How often a lease is looked at while it is watched."""

RENEWALS = 3
"""How often a lease is renewed in a period, so that one may be late."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease, as `_lease.json` says.

    Args:
        run: Name of the run.
        host: For people.
        pid: Process of the driver.
        born: When that process began, in the kernel's ticks: numbers are used again.
        machine: The kernel, and its view of process numbers: hosts share names, and containers count from 1.
        since: When it was taken, UTC.
        period_s: How long to watch before it may be taken over.
        nonce: Tells this lease from all others.
        renewed: How often it was renewed.
    """

    run: str
    host: str
    pid: int
    born: str
    machine: str
    since: str
    period_s: float
    nonce: str
    renewed: int = 0

    @classmethod
    def here(cls, run: str, period_s: float) -> Holder:
        """This process."""
        pid, since = os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        born = _born(pid) or ""
        return cls(run, socket.gethostname(), pid, born, _machine(), since, period_s, secrets.token_hex(8))

    @classmethod
    def parse(cls, data: bytes) -> Holder:
        """What a file says; one that is none of ours, or not written to its end, names nobody."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError):
            return cls("without a name", "unknown", 0, "", "", "unknown", 0.0, "")

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    @property
    def is_dead(self) -> bool:
        """Whether its process is known to be gone; of another machine's nothing is known."""
        return bool(self.machine) and self.machine == _machine() and _born(self.pid) != self.born

    def __str__(self) -> str:
        return f"run {self.run} (host {self.host}, pid {self.pid}, since {self.since})"


class Lease:
    """The right to be the one driver on an output, from `take` to the end of its block.

    Args:
        run: Name of the run, for whoever comes second.
        period_s: Seconds that another driver watches before it takes over; 0 takes no lease at all.
        stop: Asked for the end when the lease turns out to be another's.
        wait: Lets seconds pass.
    """

    def __init__(self, run: str, period_s: float, stop: Stop, wait: Callable[[float], None] = time.sleep) -> None:
        self.period_s, self._run, self._stop, self._wait = period_s, run, stop, wait
        self._store: Store | None = None  # where the lease is
        self._locked: int | None = None  # descriptor of the locked folder
        self._ended = threading.Event()
        self._renewing: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._renewing is not None:
            self._renewing.join()
        if self._store is not None:
            self._give_back(self._store)
        if self._locked is not None:
            os.close(self._locked)  # last: the file was ours for as long as the folder was locked

    def take(self, output: Store, tell: Callable[[str], None]) -> None:
        """Take the lease, from nobody or from a dead driver; kept until the block ends.

        Args:
            output: Where.
            tell: Told that another's lease is being watched, which takes a while.

        Raises:
            LeaseError: Another driver is at work there.
            StoreError: Storage said no.
        """
        if not self.period_s:
            return
        self._me = Holder.here(self._run, self.period_s)
        # Of little patience from here on: a renewal that comes late is none, and the end must not wait for one.
        store = open_store(output.uri, min(output.patience_s, self.period_s / RENEWALS))
        if store.is_local and self._lock(store):
            self._store = store
            return
        self._claim(output, tell)
        self._store = store
        self._renewing = threading.Thread(target=self._renew_until_the_end, args=(store,), name="lease", daemon=True)
        self._renewing.start()

    # --- local disks: a lock ---

    def _lock(self, output: Store) -> bool:
        """Lock the output's folder; False where the file system has no such locks."""
        try:
            self._locked = os.open(output.uri, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _occupied(output.uri, Holder.parse(_look(output) or b"")) from None
        except OSError:
            return False
        output.put(LEASE_PATH, self._me.to_bytes())
        return True

    # --- elsewhere: a file that is renewed ---

    def _claim(self, store: Store, tell: Callable[[str], None]) -> None:
        found = _look(store)
        if found is None:
            try:
                store.put(LEASE_PATH, self._me.to_bytes(), create=True)
            except ExistsError:
                found = _look(store)  # perhaps our own: a put whose answer was lost is tried again
        if found is not None and Holder.parse(found).nonce != self._me.nonce:
            self._watch(store, found, tell)
            store.put(LEASE_PATH, self._me.to_bytes())
        found = _look(store)  # of two that took over at once, or where creating overwrites, the last one has it
        if found is not None and Holder.parse(found).nonce != self._me.nonce:
            raise _occupied(store.uri, Holder.parse(found))

    def _watch(self, store: Store, found: bytes, tell: Callable[[str], None]) -> None:
        """Return when a lease is not renewed for a period."""
        holder = Holder.parse(found)
        if holder.is_dead:
            return
        period_s = holder.period_s or self.period_s
        tell(f"output {store.uri}: {holder} may still be at work; watching its lease for {period_s:g} s")
        for _ in range(LOOKS):
            self._wait(period_s / LOOKS)
            now = _look(store)
            if now is None:
                return
            if now != found:
                raise _occupied(store.uri, Holder.parse(now))

    def _renew_until_the_end(self, store: Store) -> None:
        while not self._ended.wait(self.period_s / RENEWALS):
            if not self.renew(store):
                return

    def renew(self, store: Store) -> bool:
        """Write the lease anew; when it is another's, ask for the end instead and give False."""
        try:
            found = _look(store)
            holder = self._me if found is None else Holder.parse(found)
            if holder.nonce != self._me.nonce:
                self._stop.ask(_lost(store.uri, holder))
                return False
            self._me = replace(self._me, renewed=self._me.renewed + 1)
            store.put(LEASE_PATH, self._me.to_bytes())
        except StoreError:
            return True  # if storage is away the run will find out by itself; if not, the next renewal comes
        return True

    def _give_back(self, store: Store) -> None:
        try:
            found = _look(store)
            if found is not None and Holder.parse(found).nonce == self._me.nonce:
                store.delete(LEASE_PATH)
        except StoreError:
            return  # the next driver watches a period, or sees that this process is gone


def _look(store: Store) -> bytes | None:
    try:
        return store.get(LEASE_PATH)
    except NotFoundError:
        return None


def _occupied(uri: str, holder: Holder) -> LeaseError:
    return LeaseError(f"output {uri}: {holder} is at work there. Try again when it has ended.")


def _lost(uri: str, holder: Holder) -> LeaseError:
    return LeaseError(
        f"output {uri}: this run stood still, and {holder} took over. This one stops; what it made stays."
    )


def _machine() -> str:
    """Empty where there is no telling."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _born(pid: int) -> str | None:
    """When a process began; None when it is gone, or waits for its parent to notice."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]
