/* Promise: two groups of ranks that meet by a port (MPI_Comm_accept, MPI_Comm_connect) exchange
 * messages rightly and part again, as often as they like, whatever becomes of the transport.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { LENGTH = 50000, TAG = 4 };

static void exchange(MPI_Comm remote, int color)
{
    static char out[LENGTH], in[LENGTH];
    int rank, there;
    MPI_Comm_rank(remote, &rank);
    MPI_Comm_remote_size(remote, &there);
    for (int i = 0; i < there; i++) {
        int peer = (rank + i) % there, source = 10 * !color + peer;
        MPI_Status status;
        vf_fill(out, LENGTH, 10 * color + rank, TAG, (uint64_t)vf.round);
        MPI_Sendrecv(out, LENGTH, MPI_BYTE, peer, TAG, in, LENGTH, MPI_BYTE, peer, TAG, remote,
                     &status);
        vf_check_status(&status, peer, TAG, LENGTH);
        vf_check(in, LENGTH, source, TAG, (uint64_t)vf.round);
    }
}

int main(int argc, char **argv)
{
    vf_start("connect", &argc, &argv, MPI_THREAD_SINGLE);
    VF_REQUIRE(vf.ranks % 2 == 0, "needs an even number of ranks");
    int color = vf.rank % 2;
    MPI_Comm half, remote;
    MPI_Comm_split(MPI_COMM_WORLD, color, vf.rank, &half);
    while (vf_more()) {
        char port[MPI_MAX_PORT_NAME] = "";
        if (vf.rank == 0) {
            MPI_Open_port(MPI_INFO_NULL, port);
        }
        MPI_Bcast(port, MPI_MAX_PORT_NAME, MPI_CHAR, 0, MPI_COMM_WORLD);
        if (color == 0) {
            MPI_Comm_accept(port, MPI_INFO_NULL, 0, half, &remote);
        } else {
            MPI_Comm_connect(port, MPI_INFO_NULL, 0, half, &remote);
        }
        exchange(remote, color);
        MPI_Comm_disconnect(&remote);
        if (vf.rank == 0) {
            MPI_Close_port(port);
        }
    }
    MPI_Comm_free(&half);
    return vf_finish();
}
