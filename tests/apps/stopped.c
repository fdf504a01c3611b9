/* No promise of its own: after a while of exchanging, the last rank stops as if by Ctrl-Z, all its
 * threads with it. Whoever waits for it is to be told where it stands.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

int main(int argc, char **argv)
{
    vf_start("stopped", &argc, &argv, MPI_THREAD_SINGLE);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char out[256], in[256];
    while (vf_more()) {
        vf_fill(out, sizeof(out), vf.rank, 1, (uint64_t)vf.round);
        MPI_Sendrecv(out, sizeof(out), MPI_BYTE, right, 1, in, sizeof(in), MPI_BYTE, left, 1,
                     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        vf_check(in, sizeof(in), left, 1, (uint64_t)vf.round);
        if (vf.rank == vf.ranks - 1 && vf_now() - vf.start > vf.seconds / 2) {
            raise(SIGSTOP);
        }
    }
    return vf_finish();
}
