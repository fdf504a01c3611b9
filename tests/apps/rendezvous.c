/* Promise: large messages (64 KiB to 3 MiB) in both directions at once arrive whole, whether the
 * receive was posted before or after the announcement, and the send buffer may be reused as soon
 * as the send completes.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { SMALLEST = 64 * 1024, LONGEST = 3 * 1024 * 1024, WINDOW = 4 };

static size_t length_of(int source, int index, long round)
{
    return SMALLEST + vf_hash((uint64_t)source, (uint64_t)index, (uint64_t)round) %
                          (LONGEST - SMALLEST + 1);
}

int main(int argc, char **argv)
{
    vf_start("rendezvous", &argc, &argv, MPI_THREAD_SINGLE);
    char *incoming[WINDOW], *outgoing[WINDOW];
    MPI_Request sends[WINDOW], receives[WINDOW];
    for (int i = 0; i < WINDOW; i++) {
        incoming[i] = vf_alloc(LONGEST);
        outgoing[i] = vf_alloc(LONGEST);
    }
    while (vf_more()) {
        int distance = 1 + (int)(vf.round % (vf.ranks - 1));
        int to = (vf.rank + distance) % vf.ranks;
        int from = (vf.rank + vf.ranks - distance) % vf.ranks;
        int late = (int)(vf_hash((uint64_t)vf.rank, (uint64_t)vf.round, 7) % 2);
        for (int pass = 0; pass < 2; pass++) {
            if (pass == late) {
                for (int i = 0; i < WINDOW; i++) {
                    MPI_Irecv(incoming[i], LONGEST, MPI_BYTE, from, i, MPI_COMM_WORLD,
                              &receives[i]);
                }
            } else {
                for (int i = 0; i < WINDOW; i++) {
                    size_t length = length_of(vf.rank, i, vf.round);
                    vf_fill(outgoing[i], length, vf.rank, i, (uint64_t)vf.round);
                    MPI_Isend(outgoing[i], (int)length, MPI_BYTE, to, i, MPI_COMM_WORLD,
                              &sends[i]);
                }
            }
        }
        for (int done = 0; done < 2 * WINDOW; done++) {
            MPI_Request both[2 * WINDOW];
            MPI_Status status;
            int which;
            memcpy(both, sends, sizeof sends);
            memcpy(both + WINDOW, receives, sizeof receives);
            MPI_Waitany(2 * WINDOW, both, &which, &status);
            memcpy(sends, both, sizeof sends);
            memcpy(receives, both + WINDOW, sizeof receives);
            if (which < WINDOW) {
                memset(outgoing[which], 0xdd, LONGEST);
            } else {
                int i = which - WINDOW;
                size_t length = length_of(from, i, vf.round);
                vf_check_status(&status, from, i, length);
                vf_check(incoming[i], length, from, i, (uint64_t)vf.round);
            }
        }
    }
    return vf_finish();
}
