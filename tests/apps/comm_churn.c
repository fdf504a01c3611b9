/* Promise: communicators made, used and freed all the time (dup, split, create by group, with
 * messages left in flight on one while another is made) never mix their messages, and switches in
 * between do not matter.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { BYTES = 12000, TAG = 4 };

/* A ring on any communicator; the pattern names members by their world rank and the kind. */
static void ring(MPI_Comm comm, int kind)
{
    int rank, ranks, left_world;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &ranks);
    int left = (rank + ranks - 1) % ranks, right = (rank + 1) % ranks;
    char out[BYTES], in[BYTES];
    MPI_Group members, world;
    MPI_Comm_group(comm, &members);
    MPI_Comm_group(MPI_COMM_WORLD, &world);
    MPI_Group_translate_ranks(members, 1, &left, world, &left_world);
    MPI_Group_free(&members);
    MPI_Group_free(&world);
    size_t length = 1 + vf_hash((uint64_t)kind, (uint64_t)vf.round, 71) % BYTES;
    MPI_Status status;
    vf_fill(out, length, vf.rank, kind, (uint64_t)vf.round);
    MPI_Sendrecv(out, (int)length, MPI_BYTE, right, TAG, in, BYTES, MPI_BYTE, left, TAG, comm,
                 &status);
    vf_check_status(&status, left, TAG, length);
    vf_check(in, length, left_world, kind, (uint64_t)vf.round);
}

int main(int argc, char **argv)
{
    vf_start("comm_churn", &argc, &argv, MPI_THREAD_SINGLE);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *out = vf_alloc(BYTES), *in = vf_alloc(BYTES);
    while (vf_more()) {
        MPI_Comm copy, half, again, built;
        MPI_Request send, receive;
        MPI_Group world, even;
        MPI_Comm_dup(MPI_COMM_WORLD, &copy);
        /* In flight on `copy`, unexpected until the others have come and gone. */
        vf_fill(out, BYTES, vf.rank, 0, (uint64_t)vf.round);
        MPI_Isend(out, BYTES, MPI_BYTE, right, TAG, copy, &send);
        MPI_Comm_split(MPI_COMM_WORLD, (vf.rank + (int)vf.round) % 2, -vf.rank, &half);
        ring(half, 1);
        MPI_Comm_dup(half, &again);
        MPI_Comm_free(&half);
        ring(again, 2);
        MPI_Comm_free(&again);
        int ranges[1][3] = {{0, vf.ranks - 1, 2}};
        MPI_Comm_group(MPI_COMM_WORLD, &world);
        MPI_Group_range_incl(world, 1, ranges, &even);
        MPI_Comm_create(copy, even, &built);
        if (built != MPI_COMM_NULL) {
            ring(built, 3);
            MPI_Comm_free(&built);
        }
        MPI_Group_free(&even);
        MPI_Group_free(&world);
        MPI_Irecv(in, BYTES, MPI_BYTE, left, TAG, copy, &receive);
        MPI_Wait(&receive, MPI_STATUS_IGNORE);
        vf_check(in, BYTES, left, 0, (uint64_t)vf.round);
        MPI_Wait(&send, MPI_STATUS_IGNORE);
        MPI_Comm_free(&copy);
    }
    return vf_finish();
}
