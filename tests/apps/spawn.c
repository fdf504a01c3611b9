/* Promise: ranks that a job starts while it runs (MPI_Comm_spawn) exchange messages with it and
 * among themselves rightly, in one communicator with it as well, and part from it, as often as it
 * likes, whatever becomes of the transport.
 * Options: --children N (default 2)
 *          --exchanges N with each generation (default 200)
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#define VF_FEWEST_RANKS 1
#include "verify.h"

enum { LENGTH = 20000, TAG = 4, PARENT = 0, CHILD = 100 };

/* With every rank of the other group; `side` tells the groups' patterns apart. */
static void exchange(MPI_Comm remote, int side, uint64_t sequence)
{
    static char out[LENGTH], in[LENGTH];
    int rank, there;
    MPI_Comm_rank(remote, &rank);
    MPI_Comm_remote_size(remote, &there);
    MPI_Request sends[64];
    VF_REQUIRE(there <= 64, "%d ranks there", there);
    vf_fill(out, LENGTH, side + rank, TAG, sequence);
    for (int peer = 0; peer < there; peer++) {
        MPI_Isend(out, LENGTH, MPI_BYTE, peer, TAG, remote, &sends[peer]);
    }
    for (int peer = 0; peer < there; peer++) {
        MPI_Status status;
        MPI_Recv(in, LENGTH, MPI_BYTE, peer, TAG, remote, &status);
        vf_check_status(&status, peer, TAG, LENGTH);
        vf_check(in, LENGTH, PARENT + CHILD - side + peer, TAG, sequence);
    }
    for (int peer = 0; peer < there; peer++) {
        MPI_Wait(&sends[peer], MPI_STATUS_IGNORE);
    }
}

static void together(MPI_Comm remote, int side, long exchanges, uint64_t generation)
{
    for (long i = 0; i < exchanges; i++) {
        exchange(remote, side, generation * 1000000 + (uint64_t)i);
    }
    MPI_Comm all;
    int rank, size, sum;
    MPI_Intercomm_merge(remote, side == CHILD, &all);
    MPI_Comm_rank(all, &rank);
    MPI_Comm_size(all, &size);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, all);
    VF_REQUIRE(sum == size * (size - 1) / 2, "the sum of %d ranks is %d", size, sum);
    MPI_Comm_free(&all); /* Open MPI 4.1 hangs in MPI_Comm_disconnect of it */
    MPI_Comm_disconnect(&remote);
}

/* Of the arguments that the parents gave. */
static int be_child(MPI_Comm parents, char **argv)
{
    vf.name = "spawn, child";
    together(parents, CHILD, atol(argv[2]), (uint64_t)atol(argv[3]));
    MPI_Finalize();
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "child") == 0) {
        MPI_Comm parents;
        MPI_Init(NULL, NULL);
        MPI_Comm_get_parent(&parents);
        VF_REQUIRE(parents != MPI_COMM_NULL, "no parents");
        return be_child(parents, argv);
    }
    vf_start("spawn", &argc, &argv, MPI_THREAD_SINGLE);
    int children = (int)vf_option("--children", 2);
    char exchanges[32], generation[32];
    snprintf(exchanges, sizeof exchanges, "%ld", (long)vf_option("--exchanges", 200));
    while (vf_more()) {
        MPI_Comm remote;
        int errors[64];
        snprintf(generation, sizeof generation, "%ld", vf.round);
        char *arguments[] = {"child", exchanges, generation, NULL};
        VF_REQUIRE(children <= 64, "too many children");
        MPI_Comm_spawn(argv[0], arguments, children, MPI_INFO_NULL, 0, MPI_COMM_WORLD, &remote, errors);
        together(remote, PARENT, atol(exchanges), (uint64_t)vf.round);
    }
    return vf_finish();
}
