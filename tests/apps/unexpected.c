/* Promise: messages that arrive long before their receive keep their order and content. The
 * sender runs far ahead, the receiver pulls late, in reverse order of tags and in order within a
 * tag. A switch finds a deep unexpected queue, rendezvous announcements among it.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { TAGS = 6, PER_TAG = 40, LONGEST = 96 * 1024, MESSAGES = TAGS * PER_TAG };

static size_t length_of(int source, int tag, int index, long round)
{
    uint64_t hash = vf_hash((uint64_t)source, (uint64_t)(tag * PER_TAG + index), (uint64_t)round);
    return hash % 16 == 0 ? hash / 16 % LONGEST : hash / 16 % 2048;
}

/* Lets messages pile up without receiving any: progress happens, matching does not. */
static void linger(double seconds)
{
    int flag;
    for (double end = vf_now() + seconds; vf_now() < end;) {
        MPI_Iprobe(MPI_ANY_SOURCE, TAGS + 1, MPI_COMM_WORLD, &flag, MPI_STATUS_IGNORE);
    }
}

int main(int argc, char **argv)
{
    vf_start("unexpected", &argc, &argv, MPI_THREAD_SINGLE);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *outgoing = vf_alloc((size_t)MESSAGES * LONGEST), *incoming = vf_alloc(LONGEST);
    MPI_Request sends[MESSAGES];
    MPI_Status status;

    while (vf_more()) {
        for (int i = 0; i < MESSAGES; i++) {
            int tag = i % TAGS, index = i / TAGS;
            char *out = outgoing + (size_t)i * LONGEST;
            size_t length = length_of(vf.rank, tag, index, vf.round);
            vf_fill(out, length, vf.rank, tag, (uint64_t)(vf.round * PER_TAG + index));
            MPI_Isend(out, (int)length, MPI_BYTE, right, tag, MPI_COMM_WORLD, &sends[i]);
        }
        linger((double)(vf_hash((uint64_t)vf.rank, (uint64_t)vf.round, 1) % 120) * 1e-3);
        for (int tag = TAGS - 1; tag >= 0; tag--) {
            for (int index = 0; index < PER_TAG; index++) {
                size_t length = length_of(left, tag, index, vf.round);
                MPI_Recv(incoming, LONGEST, MPI_BYTE, left, tag, MPI_COMM_WORLD, &status);
                vf_check_status(&status, left, tag, length);
                vf_check(incoming, length, left, tag, (uint64_t)(vf.round * PER_TAG + index));
            }
        }
        MPI_Waitall(MESSAGES, sends, MPI_STATUSES_IGNORE);
    }
    return vf_finish();
}
