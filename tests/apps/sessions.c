/* Promise: a program that never calls MPI_Init, but opens and closes sessions, is switched like any
 * other. The first stays open meanwhile: MPICH 4.0.2 cannot begin again when all were closed.
 * Of MPI 4: this program fails with an older one.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <mpi.h>
#define VF_ABORT() abort()
#include "pattern.h"

enum { LENGTH = 20000, TAG = 6, EXCHANGES = 40 };

#if MPI_VERSION >= 4
static void exchange(MPI_Comm comm)
{
    static char out[LENGTH], in[LENGTH];
    MPI_Comm_rank(comm, &vf.rank);
    MPI_Comm_size(comm, &vf.ranks);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    for (uint64_t i = 0; i < EXCHANGES; i++) {
        vf_fill(out, LENGTH, vf.rank, TAG, (uint64_t)vf.round * EXCHANGES + i);
        MPI_Sendrecv(out, LENGTH, MPI_BYTE, right, TAG, in, LENGTH, MPI_BYTE, left, TAG, comm,
                     MPI_STATUS_IGNORE);
        vf_check(in, LENGTH, left, TAG, (uint64_t)vf.round * EXCHANGES + i);
    }
}

/* Whether there is to be another session. */
static int session(void)
{
    MPI_Session session;
    MPI_Group group;
    MPI_Comm comm;
    MPI_Session_init(MPI_INFO_NULL, MPI_ERRORS_ARE_FATAL, &session);
    MPI_Group_from_session_pset(session, "mpi://WORLD", &group);
    MPI_Comm_create_from_group(group, "symvirt.sessions", MPI_INFO_NULL, MPI_ERRORS_ARE_FATAL, &comm);
    MPI_Group_free(&group);
    exchange(comm);
    int more = vf.rounds ? vf.round + 1 < vf.rounds : vf_now() - vf.start < vf.seconds;
    MPI_Bcast(&more, 1, MPI_INT, 0, comm);
    uint64_t mine = vf.messages, all = 0;
    MPI_Reduce(&mine, &all, 1, MPI_UINT64_T, MPI_SUM, 0, comm);
    MPI_Comm_free(&comm);
    MPI_Session_finalize(&session);
    vf.round++;
    if (!more && vf.rank == 0) {
        printf("OK %s ranks=%d rounds=%ld messages=%llu\n", vf.name, vf.ranks, vf.round,
               (unsigned long long)all);
    }
    return more;
}
#endif

int main(int argc, char **argv)
{
    vf.name = "sessions";
    vf.argc = argc;
    vf.argv = argv;
    vf.rounds = (long)vf_option("--rounds", 0);
    vf.seconds = vf_option("--seconds", 2);
    vf.start = vf_now();
#if MPI_VERSION >= 4
    MPI_Session first;
    MPI_Session_init(MPI_INFO_NULL, MPI_ERRORS_ARE_FATAL, &first);
    while (session()) {
    }
    MPI_Session_finalize(&first);
#else
    VF_REQUIRE(0, "this MPI is of version %d", MPI_VERSION);
#endif
    return 0;
}
