/* Promise: partitions of a message that are made ready in any order, with switches in between,
 * arrive where they belong. Of MPI 4: this program fails with an older one.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { PARTS = 8, PART = 6000, TAG = 2 };

#if MPI_VERSION >= 4 || OMPI_MAJOR_VERSION >= 5
static void make_ready(MPI_Request send, char *out)
{
    for (int i = 0; i < PARTS; i++) {
        int part = (i * 3 + (int)vf.round) % PARTS;
        vf_fill(out + part * PART, PART, vf.rank, part, (uint64_t)vf.round);
        MPI_Pready(part, send);
        if (vf_hash((uint64_t)vf.round, (uint64_t)part, 1) % 16 == 0) {
            struct timespec pause = {0, 5000000};
            nanosleep(&pause, NULL);
        }
    }
}
#endif

int main(int argc, char **argv)
{
    vf_start("partitioned", &argc, &argv, MPI_THREAD_SINGLE);
#if MPI_VERSION >= 4 || OMPI_MAJOR_VERSION >= 5
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *out = vf_alloc(PARTS * PART), *in = vf_alloc(PARTS * PART);
    MPI_Request send, receive;
    MPI_Psend_init(out, PARTS, PART, MPI_BYTE, right, TAG, MPI_COMM_WORLD, MPI_INFO_NULL, &send);
    MPI_Precv_init(in, PARTS, PART, MPI_BYTE, left, TAG, MPI_COMM_WORLD, MPI_INFO_NULL, &receive);
    while (vf_more()) {
        MPI_Start(&receive);
        MPI_Start(&send);
        make_ready(send, out);
        for (int part = 0; part < PARTS; part++) {
            for (int there = 0; !there;) {
                MPI_Parrived(receive, part, &there);
            }
            vf_check(in + part * PART, PART, left, part, (uint64_t)vf.round);
        }
        MPI_Wait(&send, MPI_STATUS_IGNORE);
        MPI_Wait(&receive, MPI_STATUS_IGNORE);
    }
    MPI_Request_free(&send);
    MPI_Request_free(&receive);
#else
    VF_REQUIRE(0, "this MPI is of version %d", MPI_VERSION);
#endif
    return vf_finish();
}
