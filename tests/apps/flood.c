/* Promise: messages keep order and content, also when more of them wait than a spool may hold. In
 * every other round each rank sends megabytes that nobody receives for a while, eager and by
 * rendezvous; in the others halos are exchanged with nothing waiting.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { TAGS = 4, PER_TAG = 30, LONGEST = 96 * 1024, MESSAGES = TAGS * PER_TAG, HALO = 8192 };

static size_t length_of(int source, int tag, int index, long round)
{
    uint64_t hash = vf_hash((uint64_t)source, (uint64_t)(tag * PER_TAG + index), (uint64_t)round);
    return hash % 2 == 0 ? hash / 2 % LONGEST : hash / 2 % 4096;
}

/* Lets messages pile up without receiving any: progress happens, matching does not. */
static void linger(double seconds)
{
    int flag;
    for (double end = vf_now() + seconds; vf_now() < end;) {
        MPI_Iprobe(MPI_ANY_SOURCE, TAGS + 1, MPI_COMM_WORLD, &flag, MPI_STATUS_IGNORE);
    }
}

static void flood(int left, int right, char *outgoing, char *incoming)
{
    MPI_Request sends[MESSAGES];
    MPI_Status status;
    for (int i = 0; i < MESSAGES; i++) {
        int tag = i % TAGS, index = i / TAGS;
        char *out = outgoing + (size_t)i * LONGEST;
        size_t length = length_of(vf.rank, tag, index, vf.round);
        vf_fill(out, length, vf.rank, tag, (uint64_t)(vf.round * PER_TAG + index));
        /* A synchronous one among them: it must not complete by being set aside. */
        (i % 10 == 9 ? MPI_Issend : MPI_Isend)(out, (int)length, MPI_BYTE, right, tag,
                                               MPI_COMM_WORLD, &sends[i]);
    }
    linger(0.15);
    for (int tag = TAGS - 1; tag >= 0; tag--) {
        for (int index = 0; index < PER_TAG; index++) {
            size_t length = length_of(left, tag, index, vf.round);
            if (index % 3 == 0) {
                MPI_Message message;
                MPI_Mprobe(left, tag, MPI_COMM_WORLD, &message, &status);
                vf_check_status(&status, left, tag, length);
                MPI_Mrecv(incoming, LONGEST, MPI_BYTE, &message, &status);
            } else {
                MPI_Recv(incoming, LONGEST, MPI_BYTE, left, tag, MPI_COMM_WORLD, &status);
            }
            vf_check_status(&status, left, tag, length);
            vf_check(incoming, length, left, tag, (uint64_t)(vf.round * PER_TAG + index));
        }
    }
    MPI_Waitall(MESSAGES, sends, MPI_STATUSES_IGNORE);
}

static void calm(int left, int right, char *outgoing, char *incoming)
{
    for (int step = 0; step < 300; step++) {
        uint64_t sequence = (uint64_t)(vf.round * 1000 + step);
        vf_fill(outgoing, HALO, vf.rank, TAGS, sequence);
        MPI_Sendrecv(outgoing, HALO, MPI_BYTE, right, TAGS, incoming, HALO, MPI_BYTE, left, TAGS,
                     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        vf_check(incoming, HALO, left, TAGS, sequence);
        struct timespec pause = {0, 500000};
        nanosleep(&pause, NULL);
    }
}

int main(int argc, char **argv)
{
    vf_start("flood", &argc, &argv, MPI_THREAD_SINGLE);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *outgoing = vf_alloc((size_t)MESSAGES * LONGEST), *incoming = vf_alloc(LONGEST);
    while (vf_more()) {
        (vf.round % 2 ? flood : calm)(left, right, outgoing, incoming);
    }
    return vf_finish();
}
