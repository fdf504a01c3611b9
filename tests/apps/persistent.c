/* Promise: persistent requests, made once in the first epoch, work in every later one: standard,
 * synchronous and ready sends, started one by one and all together, waited for in any order, some
 * receives started long before their message.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { KINDS = 3, PER_KIND = 5, MANY = KINDS * PER_KIND, LONGEST = 64 * 1024, GO = 99 };

static size_t length_of(int i)
{
    static const size_t lengths[PER_KIND] = {0, 16, 3000, 20000, LONGEST};
    return lengths[i % PER_KIND];
}

int main(int argc, char **argv)
{
    vf_start("persistent", &argc, &argv, MPI_THREAD_SINGLE);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    MPI_Request sends[MANY], receives[MANY];
    char *out = vf_alloc((size_t)MANY * LONGEST), *in = vf_alloc((size_t)MANY * LONGEST);
    for (int i = 0; i < MANY; i++) {
        char *from = out + (size_t)i * LONGEST;
        int count = (int)length_of(i);
        MPI_Recv_init(in + (size_t)i * LONGEST, LONGEST, MPI_BYTE, left, i, MPI_COMM_WORLD,
                      &receives[i]);
        switch (i / PER_KIND) {
        case 0: MPI_Send_init(from, count, MPI_BYTE, right, i, MPI_COMM_WORLD, &sends[i]); break;
        case 1: MPI_Ssend_init(from, count, MPI_BYTE, right, i, MPI_COMM_WORLD, &sends[i]); break;
        default: MPI_Rsend_init(from, count, MPI_BYTE, right, i, MPI_COMM_WORLD, &sends[i]);
        }
    }
    while (vf_more()) {
        MPI_Startall(MANY, receives);
        /* Ready sends may start only when their receives are posted. */
        MPI_Sendrecv(NULL, 0, MPI_BYTE, left, GO, NULL, 0, MPI_BYTE, right, GO, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
        for (int i = 0; i < MANY; i++) {
            vf_fill(out + (size_t)i * LONGEST, length_of(i), vf.rank, i, (uint64_t)vf.round);
        }
        if (vf.round % 2) {
            MPI_Startall(MANY, sends);
        } else {
            for (int i = MANY - 1; i >= 0; i--) {
                MPI_Start(&sends[i]);
            }
        }
        for (int done = 0; done < MANY;) {
            int count, indices[MANY];
            MPI_Status statuses[MANY];
            MPI_Waitsome(MANY, receives, &count, indices, statuses);
            for (int k = 0; k < count; k++) {
                int i = indices[k];
                vf_check_status(&statuses[k], left, i, length_of(i));
                vf_check(in + (size_t)i * LONGEST, length_of(i), left, i, (uint64_t)vf.round);
            }
            done += count;
        }
        MPI_Waitall(MANY, sends, MPI_STATUSES_IGNORE);
    }
    for (int i = 0; i < MANY; i++) {
        MPI_Request_free(&sends[i]);
        MPI_Request_free(&receives[i]);
    }
    return vf_finish();
}
