/* Promise: a receive posted in the first epoch and completed in the last one gets its message,
 * however many switches lie between; persistent requests work again and again; every status says
 * source, tag and count.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { FOREVER = 32, PERSISTENT = 8, LONGEST = 48 * 1024, LAST = 100, TAG = 1 };

static size_t forever_length(int source, int i)
{
    return vf_hash((uint64_t)source, (uint64_t)i, 41) % LONGEST;
}

int main(int argc, char **argv)
{
    vf_start("long_lived", &argc, &argv, MPI_THREAD_SINGLE);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *patient = vf_alloc((size_t)FOREVER * LONGEST);
    char *incoming = vf_alloc((size_t)PERSISTENT * LONGEST);
    char *outgoing = vf_alloc((size_t)PERSISTENT * LONGEST);
    MPI_Request forever[FOREVER], persistent[2 * PERSISTENT];
    MPI_Status statuses[FOREVER + 2 * PERSISTENT];

    /* Half of them with wildcards, so that later traffic of other tags passes them by. */
    for (int i = 0; i < FOREVER; i++) {
        MPI_Irecv(patient + (size_t)i * LONGEST, LONGEST, MPI_BYTE,
                  i % 2 ? left : MPI_ANY_SOURCE, LAST + i, MPI_COMM_WORLD, &forever[i]);
    }
    for (int i = 0; i < PERSISTENT; i++) {
        /* Lengths are fixed when a persistent request is made: 1, 8, 64 .. bytes. */
        size_t length = (size_t)1 << (2 * i);
        MPI_Send_init(outgoing + (size_t)i * LONGEST, (int)length, MPI_BYTE, right, TAG + i,
                      MPI_COMM_WORLD, &persistent[i]);
        MPI_Recv_init(incoming + (size_t)i * LONGEST, LONGEST, MPI_BYTE, left, TAG + i,
                      MPI_COMM_WORLD, &persistent[PERSISTENT + i]);
    }
    while (vf_more()) {
        int index, flag;
        for (int i = 0; i < PERSISTENT; i++) {
            vf_fill(outgoing + (size_t)i * LONGEST, (size_t)1 << (2 * i), vf.rank, TAG + i,
                    (uint64_t)vf.round);
        }
        MPI_Startall(2 * PERSISTENT, persistent);
        MPI_Waitall(2 * PERSISTENT, persistent, statuses);
        for (int i = 0; i < PERSISTENT; i++) {
            size_t length = (size_t)1 << (2 * i);
            vf_check_status(&statuses[PERSISTENT + i], left, TAG + i, length);
            vf_check(incoming + (size_t)i * LONGEST, length, left, TAG + i, (uint64_t)vf.round);
        }
        MPI_Testany(FOREVER, forever, &index, &flag, &statuses[0]);
        VF_REQUIRE(!flag, "a receive completed although nothing was sent to it (tag %d)",
                   statuses[0].MPI_TAG);
    }
    /* Nobody sends before everybody has looked for the last time. */
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Request sends[FOREVER];
    char *late = vf_alloc((size_t)FOREVER * LONGEST);
    for (int i = FOREVER - 1; i >= 0; i--) {
        size_t length = forever_length(vf.rank, i);
        vf_fill(late + (size_t)i * LONGEST, length, vf.rank, LAST + i, 0);
        MPI_Isend(late + (size_t)i * LONGEST, (int)length, MPI_BYTE, right, LAST + i,
                  MPI_COMM_WORLD, &sends[i]);
    }
    MPI_Waitall(FOREVER, forever, statuses);
    for (int i = 0; i < FOREVER; i++) {
        vf_check_status(&statuses[i], left, LAST + i, forever_length(left, i));
        vf_check(patient + (size_t)i * LONGEST, forever_length(left, i), left, LAST + i, 0);
    }
    MPI_Waitall(FOREVER, sends, MPI_STATUSES_IGNORE);
    for (int i = 0; i < 2 * PERSISTENT; i++) {
        MPI_Request_free(&persistent[i]);
    }
    return vf_finish();
}
