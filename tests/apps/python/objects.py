"""Pickled objects, collectives of objects and of buffers, and windows, through mpi4py: everything
that arrives is compared with what was sent.

Options: --seconds S (default 2), or --rounds N.
Last line of a run that kept its promise: "OK objects ranks=.. rounds=.. messages=.. digest=..".
The digest is of all that rank 0 received in the first 40 rounds: the same in every run of them.
SPDX-License-Identifier: MIT OR Apache-2.0
"""

import hashlib
import pickle
import sys
import time
from array import array

from mpi4py import MPI

COMM = MPI.COMM_WORLD
RANK, RANKS = COMM.Get_rank(), COMM.Get_size()
DIGESTED = 40
SIZES = (0, 1, 200, 8_000, 70_000, 600_000)


def option(name, default):
    words = sys.argv[1:]
    return type(default)(words[words.index(name) + 1]) if name in words else default


def require(holds, what):
    if not holds:
        print(f"FAILED objects rank {RANK}: {what}", file=sys.stderr, flush=True)
        COMM.Abort(3)


def thing(source, round_, size):
    """An object that only this source sends in this round; its pickle has about `size` bytes."""
    text = bytes((source * 31 + round_ * 7 + i) % 251 for i in range(min(size, 2_000)))
    text = text * (size // 2_000) if size > 2_000 else text
    return {"from": (source, round_), "text": text, "set": {round_, -source}, "none": None, "float": round_ / 3}


def to_and_from_everybody(round_, digest):
    """Non-blocking sends of all sizes to all, received by matched probe or posted receive."""
    size = SIZES[round_ % len(SIZES)]
    sent = [COMM.isend(thing(RANK, round_, size), peer, tag=round_ % 100) for peer in range(RANKS)]
    for peer in range(RANKS):
        if round_ % 2:
            got = COMM.mprobe(peer, round_ % 100).recv()
        else:
            got = COMM.recv(None, peer, round_ % 100)
        require(got == thing(peer, round_, size), f"round {round_}: an object of {peer} is not what was sent")
        digest(got["text"])
    MPI.Request.waitall(sent)
    return RANKS


def collectives(round_, digest):
    """Of objects and of buffers."""
    root = round_ % RANKS
    got = COMM.bcast(thing(root, round_, 9_000) if RANK == root else None, root)
    require(got == thing(root, round_, 9_000), f"round {round_}: bcast")
    got = COMM.alltoall([thing(RANK, round_ + peer, 300) for peer in range(RANKS)])
    require(got == [thing(peer, round_ + RANK, 300) for peer in range(RANKS)], f"round {round_}: alltoall")
    got = COMM.allreduce({RANK: [round_]}, op=lambda a, b: {**a, **b})
    require(got == {rank: [round_] for rank in range(RANKS)}, f"round {round_}: allreduce of objects")
    got = COMM.scatter([thing(root, round_, 50 * i) for i in range(RANKS)] if RANK == root else None, root)
    require(got == thing(root, round_, 50 * RANK), f"round {round_}: scatter")
    total = array("d", bytes(8 * 5_000))
    COMM.Allreduce(array("d", [RANK + i + round_ for i in range(5_000)]), total)
    base = sum(range(RANKS))
    require(all(total[i] == base + RANKS * (i + round_) for i in range(5_000)), f"round {round_}: Allreduce")
    digest(total.tobytes())
    return 5


class Window:
    """A window of one slot a rank, and a counter."""

    SLOT = 4_096

    def __init__(self):
        self.slots = MPI.Win.Allocate(self.SLOT * RANKS, 1, comm=COMM)
        self.counter = MPI.Win.Allocate(8, 8, comm=COMM)
        self.counter.Lock(RANK)
        self.counter.tomemory()[:] = bytes(8)
        self.counter.Unlock(RANK)
        COMM.Barrier()
        self.added = 0

    def round(self, round_, digest):
        """A put to everybody under a fence, a get back under a lock, a counter that all add to."""
        mine = [bytes((RANK + peer + round_ + i) % 256 for i in range(256)) * 16 for peer in range(RANKS)]
        self.slots.Fence()
        for peer in range(RANKS):
            self.slots.Put(mine[peer], peer, target=(self.SLOT * RANK, self.SLOT, MPI.BYTE))
        self.slots.Fence()
        back = bytearray(self.SLOT)
        peer = (RANK + round_) % RANKS
        self.slots.Lock(peer, MPI.LOCK_SHARED)
        self.slots.Get(back, peer, target=(self.SLOT * RANK, self.SLOT, MPI.BYTE))
        self.slots.Unlock(peer)
        require(back == mine[peer], f"round {round_}: what was put is not what is got")
        digest(bytes(back))
        # MPI reads the origin until the unlock: it may be no temporary.
        one, old, last = array("q", [1]), array("q", [0]), -1
        for _ in range(10):
            self.counter.Lock(0, MPI.LOCK_SHARED)
            self.counter.Fetch_and_op(one, old, 0, 0, MPI.SUM)
            self.counter.Unlock(0)
            most = (self.added + 10) * RANKS
            require(last < old[0] < most, f"round {round_}: the counter goes from {last} to {old[0]}, at most {most}")
            last = old[0]
        self.added += 10
        return 2 + 10

    def close(self):
        COMM.Barrier()
        if RANK == 0:
            total = array("q", [0])
            self.counter.Lock(0)
            self.counter.Get(total, 0)
            self.counter.Unlock(0)
            require(total[0] == self.added * RANKS, f"the counter is {total[0]}, not {self.added * RANKS}")
        COMM.Barrier()
        self.slots.Free()
        self.counter.Free()


def main():
    seconds, rounds = option("--seconds", 2.0), option("--rounds", 0)
    require(pickle.loads(pickle.dumps(thing(0, 1, 10))) == thing(0, 1, 10), "pickle itself")
    received = hashlib.sha256()
    window = Window()
    begun, round_, messages = time.monotonic(), 0, 0
    while COMM.bcast(round_ < rounds if rounds else time.monotonic() - begun < seconds, 0):
        digest = received.update if round_ < DIGESTED else lambda _: None
        for step in (to_and_from_everybody, collectives, window.round):
            messages += step(round_, digest)
        round_ += 1
    window.close()
    total = COMM.allreduce(messages)
    if RANK == 0:
        print(
            f"OK objects ranks={RANKS} rounds={round_} messages={total} digest={received.hexdigest()[:16]}",
            flush=True,
        )


main()
