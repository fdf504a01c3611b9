/* Promise: receives that were posted long before their messages, with tags in another order than
 * the sends, each get exactly the message of their tag; receives of the same tag are matched in
 * the order in which they were posted. A switch finds hundreds of posted receives and must
 * re-post all of them in order.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { TAGS = 48, PER_TAG = 4, POSTED = TAGS * PER_TAG, LONGEST = 24 * 1024 };

static size_t length_of(int source, int tag, int index, long round)
{
    uint64_t hash = vf_hash((uint64_t)source, (uint64_t)(tag * PER_TAG + index), (uint64_t)round);
    return hash % 8 == 0 ? hash / 8 % LONGEST : hash / 8 % 512;
}

int main(int argc, char **argv)
{
    vf_start("preposted", &argc, &argv, MPI_THREAD_SINGLE);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *incoming = vf_alloc((size_t)POSTED * LONGEST);
    char *outgoing = vf_alloc((size_t)POSTED * LONGEST);
    MPI_Request receives[POSTED], sends[POSTED];
    MPI_Status statuses[POSTED];

    while (vf_more()) {
        for (int i = 0; i < POSTED; i++) {
            MPI_Irecv(incoming + (size_t)i * LONGEST, LONGEST, MPI_BYTE, left, i % TAGS,
                      MPI_COMM_WORLD, &receives[i]);
        }
        /* Both sides have posted: nothing below is unexpected. */
        MPI_Barrier(MPI_COMM_WORLD);
        int posted = 0;
        for (int tag = TAGS - 1; tag >= 0; tag--) {
            for (int index = 0; index < PER_TAG; index++, posted++) {
                char *out = outgoing + (size_t)posted * LONGEST;
                size_t length = length_of(vf.rank, tag, index, vf.round);
                vf_fill(out, length, vf.rank, tag, (uint64_t)(vf.round * PER_TAG + index));
                MPI_Isend(out, (int)length, MPI_BYTE, right, tag, MPI_COMM_WORLD, &sends[posted]);
            }
        }
        MPI_Waitall(POSTED, receives, statuses);
        for (int i = 0; i < POSTED; i++) {
            int tag = i % TAGS, index = i / TAGS;
            size_t length = length_of(left, tag, index, vf.round);
            vf_check_status(&statuses[i], left, tag, length);
            vf_check(incoming + (size_t)i * LONGEST, length, left, tag,
                     (uint64_t)(vf.round * PER_TAG + index));
        }
        MPI_Waitall(POSTED, sends, MPI_STATUSES_IGNORE);
    }
    return vf_finish();
}
