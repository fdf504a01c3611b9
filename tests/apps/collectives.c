/* Promise: a switch in the middle of a collective does not change its result: allreduce,
 * alltoallv, bcast, barrier, ireduce and iallgather, several at once where they are non-blocking.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { ELEMENTS = 6000, LONGEST = 128 * 1024 };

/* Small integers: their sum is exact in a double and in a long. */
static long term(int rank, int i)
{
    return (long)(vf_hash((uint64_t)rank, (uint64_t)vf.round, (uint64_t)i) % 1000);
}

static long sum_of(int i)
{
    long sum = 0;
    for (int rank = 0; rank < vf.ranks; rank++) {
        sum += term(rank, i);
    }
    return sum;
}

static void reductions(long *mine, long *sum, long *rooted)
{
    int elements = vf.round % 2 ? ELEMENTS : 1 + (int)(vf.round % 64);
    int root = (int)(vf.round % vf.ranks);
    MPI_Request request;
    for (int i = 0; i < elements; i++) {
        mine[i] = term(vf.rank, i);
    }
    MPI_Ireduce(mine, rooted, elements, MPI_LONG, MPI_SUM, root, MPI_COMM_WORLD, &request);
    MPI_Allreduce(mine, sum, elements, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    for (int i = 0; i < elements; i++) {
        VF_REQUIRE(sum[i] == sum_of(i), "allreduce element %d is %ld, expected %ld", i, sum[i],
                   sum_of(i));
        VF_REQUIRE(vf.rank != root || rooted[i] == sum_of(i),
                   "ireduce element %d is %ld, expected %ld", i, rooted[i], sum_of(i));
    }
    vf_count((size_t)elements * sizeof(long));
}

static int share(int from, int to)
{
    uint64_t hash = vf_hash((uint64_t)(from * vf.ranks + to), (uint64_t)vf.round, 51);
    return (int)(hash % (hash % 4 == 0 ? LONGEST : 900));
}

static void exchange(char *out, char *in, int *tables)
{
    int *sends = tables, *receives = sends + vf.ranks;
    int *from = receives + vf.ranks, *into = from + vf.ranks;
    for (int peer = 0; peer < vf.ranks; peer++) {
        sends[peer] = share(vf.rank, peer);
        receives[peer] = share(peer, vf.rank);
        from[peer] = into[peer] = peer * LONGEST;
        vf_fill(out + from[peer], (size_t)sends[peer], vf.rank, peer, (uint64_t)vf.round);
    }
    MPI_Alltoallv(out, sends, from, MPI_BYTE, in, receives, into, MPI_BYTE, MPI_COMM_WORLD);
    for (int peer = 0; peer < vf.ranks; peer++) {
        vf_check(in + into[peer], (size_t)receives[peer], peer, vf.rank, (uint64_t)vf.round);
    }
}

static void spread(char *out, char *in)
{
    int root = (int)(vf.round % vf.ranks), length = share(root, root);
    MPI_Request request;
    vf_fill(out, 512, vf.rank, 1, (uint64_t)vf.round);
    MPI_Iallgather(out, 512, MPI_BYTE, in, 512, MPI_BYTE, MPI_COMM_WORLD, &request);
    char *whole = out + LONGEST;
    if (vf.rank == root) {
        vf_fill(whole, (size_t)length, root, 2, (uint64_t)vf.round);
    }
    MPI_Bcast(whole, length, MPI_BYTE, root, MPI_COMM_WORLD);
    vf_check(whole, (size_t)length, root, 2, (uint64_t)vf.round);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    for (int peer = 0; peer < vf.ranks; peer++) {
        vf_check(in + peer * 512, 512, peer, 1, (uint64_t)vf.round);
    }
}

int main(int argc, char **argv)
{
    vf_start("collectives", &argc, &argv, MPI_THREAD_SINGLE);
    long *longs = vf_alloc(3 * ELEMENTS * sizeof *longs);
    char *out = vf_alloc((size_t)vf.ranks * LONGEST), *in = vf_alloc((size_t)vf.ranks * LONGEST);
    int *tables = vf_alloc(4 * (size_t)vf.ranks * sizeof *tables);
    while (vf_more()) {
        reductions(longs, longs + ELEMENTS, longs + 2 * ELEMENTS);
        exchange(out, in, tables);
        spread(out, in);
    }
    return vf_finish();
}
