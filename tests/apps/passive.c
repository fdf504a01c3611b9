/* Promise: a put into, or a get from, an allocated window of a rank on the same machine is complete
 * after its flush although the owner makes no call to MPI until it sees the put. So only where
 * ranks share memory.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

/* Of the owner's window: what was put, and what is there to be got. */
enum { PUT, READY, WORDS };
/* Far more than the owner ever waits. */
static const double PATIENCE = 30;

static void own(volatile uint64_t *words, uint64_t round)
{
    words[READY] = ~round;
    MPI_Barrier(MPI_COMM_WORLD);
    double start = vf_now();
    while (words[PUT] != round) {
        VF_REQUIRE(vf_now() - start < PATIENCE, "the put of round %llu has not come",
                   (unsigned long long)round);
    }
}

static void visit(MPI_Win window, uint64_t round)
{
    MPI_Barrier(MPI_COMM_WORLD);
    uint64_t got = 0;
    MPI_Get(&got, 8, MPI_BYTE, 1, READY * 8, 8, MPI_BYTE, window);
    MPI_Win_flush(1, window);
    VF_REQUIRE(got == ~round, "got %llx in round %llu", (unsigned long long)got,
               (unsigned long long)round);
    MPI_Put(&round, 8, MPI_BYTE, 1, PUT * 8, 8, MPI_BYTE, window);
    MPI_Win_flush(1, window);
    vf_count(2 * sizeof round);
}

int main(int argc, char **argv)
{
    vf_start("passive", &argc, &argv, MPI_THREAD_SINGLE);
    VF_REQUIRE(vf.ranks == 2, "runs on 2 ranks");
    uint64_t *words = NULL;
    MPI_Win window;
    MPI_Win_allocate(WORDS * sizeof *words, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &words, &window);
    memset(words, 0, WORDS * sizeof *words);
    MPI_Win_lock_all(0, window);
    for (uint64_t round = 1; vf_more(); round++) {
        if (vf.rank == 1) {
            own(words, round);
        } else {
            visit(window, round);
        }
    }
    MPI_Win_unlock_all(window);
    MPI_Win_free(&window);
    return vf_finish();
}
