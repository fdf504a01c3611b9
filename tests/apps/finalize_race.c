/* Promise: a job that initializes, works for an instant and finalizes at once survives switches
 * in any of these. Ranks enter and leave at different times (a rank-dependent delay before
 * MPI_Finalize), endpoints are made by the first message only.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

int main(int argc, char **argv)
{
    vf_start("finalize_race", &argc, &argv, MPI_THREAD_SINGLE);
    vf.seconds = vf_option("--seconds", 0.05);
    /* Fresh numbers in every run: the parent's process id differs. */
    uint64_t salt = (uint64_t)vf_now();
    MPI_Bcast(&salt, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
    char out[2000], in[2000];
    while (vf_more()) {
        for (int distance = 0; distance < vf.ranks; distance++) {
            int to = (vf.rank + distance) % vf.ranks;
            int from = (vf.rank + vf.ranks - distance) % vf.ranks;
            vf_fill(out, sizeof out, vf.rank, distance, salt + (uint64_t)vf.round);
            MPI_Sendrecv(out, sizeof out, MPI_BYTE, to, distance, in, sizeof in, MPI_BYTE, from,
                         distance, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            vf_check(in, sizeof in, from, distance, salt + (uint64_t)vf.round);
        }
    }
    /* Up to 60 ms without MPI, so that some ranks are in MPI_Finalize while others are not. */
    struct timespec delay = {0, (long)(vf_hash(salt, (uint64_t)vf.rank, 61) % 60) * 1000000};
    nanosleep(&delay, NULL);
    return vf_finish();
}
