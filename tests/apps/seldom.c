/* Promise: who has not spoken to a peer for long reaches it again, over however many switches,
 * by message and by window. A ring speaks all the time; every 0.3 s each rank sends to one that is
 * another each time, and adds to its counter.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { BYTES = 20000, RING = 1, SELDOM = 2 };

int main(int argc, char **argv)
{
    vf_start("seldom", &argc, &argv, MPI_THREAD_SINGLE);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *out = vf_alloc(BYTES), *in = vf_alloc(BYTES);
    int64_t *counter, one = 1;
    MPI_Win window;
    MPI_Win_allocate(sizeof *counter, sizeof *counter, MPI_INFO_NULL, MPI_COMM_WORLD, &counter,
                     &window);
    *counter = 0;
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Win_lock_all(0, window);
    uint64_t times = 0;
    double spoke = vf_now();
    while (vf_more()) {
        MPI_Status status;
        vf_fill(out, BYTES, vf.rank, RING, (uint64_t)vf.round);
        MPI_Sendrecv(out, BYTES, MPI_BYTE, right, RING, in, BYTES, MPI_BYTE, left, RING,
                     MPI_COMM_WORLD, &status);
        vf_check_status(&status, left, RING, BYTES);
        vf_check(in, BYTES, left, RING, (uint64_t)vf.round);
        int now = vf_now() - spoke > 0.3;
        MPI_Bcast(&now, 1, MPI_INT, 0, MPI_COMM_WORLD);
        if (!now) {
            continue;
        }
        spoke = vf_now();
        int step = (int)(++times % (uint64_t)vf.ranks);
        int to = (vf.rank + step) % vf.ranks, from = (vf.rank + vf.ranks - step) % vf.ranks;
        size_t length = 1 + vf_hash(times, 0, 5) % BYTES;
        vf_fill(out, length, vf.rank, SELDOM, times);
        MPI_Sendrecv(out, (int)length, MPI_BYTE, to, SELDOM, in, BYTES, MPI_BYTE, from, SELDOM,
                     MPI_COMM_WORLD, &status);
        vf_check_status(&status, from, SELDOM, length);
        vf_check(in, length, from, SELDOM, times);
        MPI_Accumulate(&one, 1, MPI_INT64_T, to, 0, 1, MPI_INT64_T, MPI_SUM, window);
        MPI_Win_flush(to, window);
    }
    MPI_Win_unlock_all(window);
    MPI_Barrier(MPI_COMM_WORLD);
    VF_REQUIRE((uint64_t)*counter == times, "%llu were added, the counter is %lld",
               (unsigned long long)times, (long long)*counter);
    MPI_Win_free(&window);
    return vf_finish();
}
