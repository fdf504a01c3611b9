/* Promise: one-sided communication (MPI_Put, MPI_Get, MPI_Accumulate, fences and locks) computes
 * what it should in a job of a gang, also if it has another window whose memory it has given back
 * to the kernel too early: it must not, but while nobody uses that window, nothing minds.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _DEFAULT_SOURCE
#include "verify.h"
#include <sys/mman.h>

enum { ELEMENTS = 3000, GONE = 1 << 20 };

static long value(int rank, int i)
{
    return (long)(vf_hash((uint64_t)rank, (uint64_t)vf.round, (uint64_t)i) >> 8);
}

static MPI_Win window_of_nothing(void)
{
    MPI_Win window;
    void *memory = mmap(NULL, GONE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    VF_REQUIRE(memory != MAP_FAILED, "no memory");
    MPI_Win_create(memory, GONE, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &window);
    VF_REQUIRE(munmap(memory, GONE) == 0, "munmap failed");
    return window;
}

int main(int argc, char **argv)
{
    vf_start("window", &argc, &argv, MPI_THREAD_SINGLE);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    long *memory, *mine = vf_alloc(ELEMENTS * sizeof *mine), one = 1;
    MPI_Win window, nothing = window_of_nothing();
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
    MPI_Win_free(&nothing);
    return vf_finish();
}
