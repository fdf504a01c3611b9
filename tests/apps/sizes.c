/* Promise: every length from zero bytes to 3 MiB, dense around the points where UCX changes its
 * protocol, arrives whole, with the right count, and writes not one byte more than that.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { LONGEST = 3 * 1024 * 1024, MOST = 1024, GUARD = 64, POISON = 0xc3 };

static size_t lengths[MOST];
static int count;

static void add(size_t length)
{
    if (length <= LONGEST && count < MOST) {
        lengths[count++] = length;
    }
}

static void make_lengths(void)
{
    for (size_t length = 0; length <= 40; length++) {
        add(length);
    }
    for (size_t power = 64; power <= LONGEST; power *= 2) {
        for (size_t delta = 0; delta < 3; delta++) {
            add(power - 1 + delta);
        }
        add(power + power / 2);
    }
    /* Around the short, bcopy, zcopy and rendezvous limits of tcp (8192) and posix (8256). */
    for (size_t length = 8100; length < 8320; length += 11) {
        add(length);
    }
    add(LONGEST);
}

int main(int argc, char **argv)
{
    vf_start("sizes", &argc, &argv, MPI_THREAD_SINGLE);
    make_lengths();
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    unsigned char *incoming = vf_alloc(LONGEST + GUARD), *outgoing = vf_alloc(LONGEST);

    while (vf_more()) {
        /* One slice of the list a round, so that a short run still ends in time. */
        for (int i = (int)(vf.round % 8); i < count; i += 8) {
            size_t length = lengths[i];
            uint64_t sequence = (uint64_t)vf.round;
            MPI_Request requests[2];
            MPI_Status statuses[2];
            memset(incoming, POISON, length + GUARD);
            vf_fill(outgoing, length, vf.rank, i, sequence);
            if ((vf.rank + i) % 2) {
                MPI_Irecv(incoming, (int)length, MPI_BYTE, left, i, MPI_COMM_WORLD, &requests[1]);
                MPI_Isend(outgoing, (int)length, MPI_BYTE, right, i, MPI_COMM_WORLD, &requests[0]);
            } else {
                MPI_Isend(outgoing, (int)length, MPI_BYTE, right, i, MPI_COMM_WORLD, &requests[0]);
                MPI_Irecv(incoming, LONGEST, MPI_BYTE, left, i, MPI_COMM_WORLD, &requests[1]);
            }
            MPI_Waitall(2, requests, statuses);
            vf_check_status(&statuses[1], left, i, length);
            vf_check(incoming, length, left, i, sequence);
            vf_check_untouched(incoming + length, GUARD, POISON);
        }
    }
    return vf_finish();
}
