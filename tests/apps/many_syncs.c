/* Promise: any number of synchronous sends may wait for their receives when the transport changes:
 * each completes, once its receive is posted, and none before.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"
#include <unistd.h>

enum { SYNC = 1, LENGTH = 24, MANY = 700 };

static void sender(int peer, char *buffers, MPI_Request *requests)
{
    for (int i = 0; i < MANY; i++) {
        char *buffer = buffers + i * LENGTH;
        vf_fill(buffer, LENGTH, vf.rank, SYNC, (uint64_t)(vf.round * MANY + i));
        MPI_Issend(buffer, LENGTH, MPI_BYTE, peer, SYNC, MPI_COMM_WORLD, &requests[i]);
    }
    int done;
    MPI_Test(&requests[MANY - 1], &done, MPI_STATUS_IGNORE);
    VF_REQUIRE(!done, "a synchronous send completed before its receive was posted");
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Waitall(MANY, requests, MPI_STATUSES_IGNORE);
}

/* Some are expected, some come before their receive: a drain treats them differently. */
static void receiver(int peer, char *buffers, MPI_Request *requests)
{
    int posted = vf.round % 2 ? MANY / 2 : 0;
    MPI_Barrier(MPI_COMM_WORLD);
    usleep((useconds_t)(vf_hash(0, (uint64_t)vf.round, 0) % 60000));
    for (int i = 0; i < posted; i++) {
        MPI_Irecv(buffers + i * LENGTH, LENGTH, MPI_BYTE, peer, SYNC, MPI_COMM_WORLD, &requests[i]);
    }
    MPI_Waitall(posted, requests, MPI_STATUSES_IGNORE);
    for (int i = posted; i < MANY; i++) {
        MPI_Recv(buffers + i * LENGTH, LENGTH, MPI_BYTE, peer, SYNC, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
    }
    for (int i = 0; i < MANY; i++) {
        vf_check(buffers + i * LENGTH, LENGTH, peer, SYNC, (uint64_t)(vf.round * MANY + i));
    }
}

int main(int argc, char **argv)
{
    vf_start("many_syncs", &argc, &argv, MPI_THREAD_SINGLE);
    char *buffers = vf_alloc((size_t)MANY * LENGTH);
    MPI_Request *requests = vf_alloc(MANY * sizeof *requests);
    while (vf_more()) {
        int peer = vf.rank ^ 1;
        if (peer < vf.ranks && vf.rank % 2 == vf.round / 2 % 2) {
            sender(peer, buffers, requests);
        } else if (peer < vf.ranks) {
            receiver(peer, buffers, requests);
        } else {
            MPI_Barrier(MPI_COMM_WORLD);
        }
    }
    return vf_finish();
}
