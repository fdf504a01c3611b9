/* Promise: with several megabytes in flight at every moment, in both directions between all
 * neighbours, nothing is lost, torn or reordered: a window of large sends and receives is kept
 * full, so a switch always finds rendezvous transfers in all stages.
 * Options: --bytes B for one message (default 1 MiB), --window W (default 6).
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { TAG = 9, MOST = 64 };

int main(int argc, char **argv)
{
    vf_start("bulk", &argc, &argv, MPI_THREAD_SINGLE);
    size_t bytes = (size_t)vf_option("--bytes", 1 << 20);
    int window = (int)vf_option("--window", 6);
    VF_REQUIRE(window >= 1 && window <= MOST, "--window must be 1 to %d", MOST);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *outgoing = vf_alloc((size_t)window * bytes), *incoming = vf_alloc((size_t)window * bytes);
    MPI_Request sends[MOST], receives[MOST];
    uint64_t sent = 0, received = 0;

    /* All ranks run the same number of laps between two decisions to go on, and slots are used
     * in turn: the k-th message travels from slot k mod window to slot k mod window. */
    for (int i = 0; i < window; i++) {
        sends[i] = MPI_REQUEST_NULL;
        MPI_Irecv(incoming + (size_t)i * bytes, (int)bytes, MPI_BYTE, left, TAG, MPI_COMM_WORLD,
                  &receives[i]);
    }
    while (vf_more()) {
        for (int i = 0; i < 4 * window; i++) {
            int slot = (int)(sent % (uint64_t)window);
            char *out = outgoing + (size_t)slot * bytes, *in = incoming + (size_t)slot * bytes;
            MPI_Wait(&sends[slot], MPI_STATUS_IGNORE);
            vf_fill(out, bytes, vf.rank, TAG, sent++);
            MPI_Isend(out, (int)bytes, MPI_BYTE, right, TAG, MPI_COMM_WORLD, &sends[slot]);
            if (sent < (uint64_t)window) {
                continue;
            }
            slot = (int)(received % (uint64_t)window);
            in = incoming + (size_t)slot * bytes;
            MPI_Status status;
            MPI_Wait(&receives[slot], &status);
            vf_check_status(&status, left, TAG, bytes);
            vf_check(in, bytes, left, TAG, received++);
            MPI_Irecv(in, (int)bytes, MPI_BYTE, left, TAG, MPI_COMM_WORLD, &receives[slot]);
        }
    }
    for (; received < sent; received++) {
        int slot = (int)(received % (uint64_t)window);
        MPI_Wait(&receives[slot], MPI_STATUS_IGNORE);
        vf_check(incoming + (size_t)slot * bytes, bytes, left, TAG, received);
        MPI_Irecv(incoming + (size_t)slot * bytes, (int)bytes, MPI_BYTE, left, TAG, MPI_COMM_WORLD,
                  &receives[slot]);
    }
    MPI_Waitall(window, sends, MPI_STATUSES_IGNORE);
    for (int i = 0; i < window; i++) {
        MPI_Cancel(&receives[i]);
        MPI_Wait(&receives[i], MPI_STATUS_IGNORE);
    }
    return vf_finish();
}
