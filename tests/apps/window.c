/* Promise: one-sided communication (MPI_Put, MPI_Get, MPI_Accumulate, fences and locks) computes
 * what it should in a job of a gang. Where the library does not move windows, the job runs on
 * unswitched while a window is open.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { ELEMENTS = 3000 };

static long value(int rank, int i)
{
    return (long)(vf_hash((uint64_t)rank, (uint64_t)vf.round, (uint64_t)i) >> 8);
}

int main(int argc, char **argv)
{
    vf_start("window", &argc, &argv, MPI_THREAD_SINGLE);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    long *memory, *mine = vf_alloc(ELEMENTS * sizeof *mine), one = 1;
    MPI_Win window;
    MPI_Win_allocate((ELEMENTS + 1) * sizeof *memory, sizeof *memory, MPI_INFO_NULL,
                     MPI_COMM_WORLD, &memory, &window);
    memory[ELEMENTS] = 0;
    while (vf_more()) {
        for (int i = 0; i < ELEMENTS; i++) {
            mine[i] = value(vf.rank, i);
        }
        MPI_Win_fence(0, window);
        MPI_Put(mine, ELEMENTS, MPI_LONG, right, 0, ELEMENTS, MPI_LONG, window);
        MPI_Win_fence(0, window);
        for (int i = 0; i < ELEMENTS; i++) {
            VF_REQUIRE(memory[i] == value(left, i), "put element %d is wrong", i);
        }
        MPI_Win_fence(0, window);
        MPI_Get(mine, ELEMENTS, MPI_LONG, right, 0, ELEMENTS, MPI_LONG, window);
        MPI_Win_fence(0, window);
        for (int i = 0; i < ELEMENTS; i++) {
            VF_REQUIRE(mine[i] == value(vf.rank, i), "got element %d is wrong", i);
        }
        MPI_Win_lock(MPI_LOCK_SHARED, 0, 0, window);
        MPI_Accumulate(&one, 1, MPI_LONG, 0, ELEMENTS, 1, MPI_LONG, MPI_SUM, window);
        MPI_Win_unlock(0, window);
        vf_count(2 * ELEMENTS * sizeof *mine);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Win_fence(0, window);
    VF_REQUIRE(vf.rank != 0 || memory[ELEMENTS] == vf.round * vf.ranks,
               "accumulated %ld, expected %ld", memory[ELEMENTS], vf.round * vf.ranks);
    MPI_Win_free(&window);
    return vf_finish();
}
