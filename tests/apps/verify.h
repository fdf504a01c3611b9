/* What every MPI program in this folder shares: a loop bounded by time on which all ranks agree,
 * and statuses checked.
 *
 * Options of every program: --seconds S (default 2), or --rounds N; others where it says so.
 * SIGUSR1 to rank 0 ends the time at once.
 * Last line of a run that kept its promise: "OK name ranks=.. rounds=.. messages=.. bytes=..".
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SYMVIRT_VERIFY_H
#define SYMVIRT_VERIFY_H

#include <mpi.h>
#include <signal.h>
#define VF_ABORT() MPI_Abort(MPI_COMM_WORLD, 3)
#include "pattern.h"

#ifndef VF_FEWEST_RANKS
#define VF_FEWEST_RANKS 2
#endif

static inline void vf_check_status(const MPI_Status *status, int source, int tag, size_t length)
{
    int count;
    MPI_Get_count(status, MPI_BYTE, &count);
    VF_REQUIRE(status->MPI_SOURCE == source && status->MPI_TAG == tag && (size_t)count == length,
               "status says source %d tag %d length %d, expected source %d tag %d length %zu",
               status->MPI_SOURCE, status->MPI_TAG, count, source, tag, length);
}

static volatile sig_atomic_t vf_stopped;

static inline void vf_stop(int number)
{
    (void)number;
    vf_stopped = 1;
}

static inline void vf_start(const char *name, int *argc, char ***argv, int thread_level)
{
    int provided;
    vf.name = name;
    MPI_Init_thread(argc, argv, thread_level, &provided);
    vf.argc = *argc;
    vf.argv = *argv;
    MPI_Comm_rank(MPI_COMM_WORLD, &vf.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &vf.ranks);
    VF_REQUIRE(provided >= thread_level, "thread level %d is not provided (%d is)", thread_level,
               provided);
    VF_REQUIRE(vf.ranks >= VF_FEWEST_RANKS, "needs at least %d ranks", VF_FEWEST_RANKS);
    vf.rounds = (long)vf_option("--rounds", 0);
    vf.seconds = vf_option("--seconds", 2);
    vf.start = vf_now();
    signal(SIGUSR1, vf_stop);
}

static inline int vf_time_left(void)
{
    return !vf_stopped && vf_now() - vf.start < vf.seconds;
}

/* Whether there is another round: rank 0 decides for all. Collective. */
static inline int vf_more(void)
{
    /* One round at least, however long it took to get here. */
    int more = vf.rounds ? vf.round < vf.rounds : vf.round == 0 || vf_time_left();
    MPI_Bcast(&more, 1, MPI_INT, 0, MPI_COMM_WORLD);
    vf.round += more;
    return more;
}

static inline int vf_finish(void)
{
    uint64_t mine[2] = {vf.messages, vf.bytes}, total[2] = {0, 0};
    MPI_Reduce(mine, total, 2, MPI_UINT64_T, MPI_SUM, 0, MPI_COMM_WORLD);
    if (vf.rank == 0) {
        VF_REQUIRE(total[0] > 0, "no message was verified");
        printf("OK %s ranks=%d rounds=%ld messages=%llu bytes=%llu\n", vf.name, vf.ranks, vf.round,
               (unsigned long long)total[0], (unsigned long long)total[1]);
        fflush(stdout);
    }
    MPI_Finalize();
    return 0;
}

#endif
