/* Promise: a cancelled receive is either cancelled or complete, never both or neither: if
 * cancelled, its message goes to the next receive; buffers and tags can be used again at once.
 * Some receives are cancelled that nothing was ever sent to, some race with their message.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { IDLE = 16, RACES = 24, LONGEST = 40 * 1024, NEVER = 900, TAG = 3 };

static size_t length_of(int source, uint64_t sequence)
{
    uint64_t hash = vf_hash((uint64_t)source, sequence, 31);
    return hash % 6 == 0 ? hash / 8 % LONGEST : hash / 8 % 700;
}

/* Receives whose tag is never sent: MPI_Cancel must succeed. */
static void cancel_idle(int peer, char *buffer)
{
    MPI_Request idle[IDLE];
    for (int i = 0; i < IDLE; i++) {
        MPI_Irecv(buffer + (size_t)i * LONGEST, LONGEST, MPI_BYTE,
                  i % 2 ? MPI_ANY_SOURCE : peer, NEVER + i, MPI_COMM_WORLD, &idle[i]);
    }
    /* Long enough that a switch finds them posted now and then. */
    int flag;
    for (double end = vf_now() + 0.02; vf_now() < end;) {
        MPI_Iprobe(peer, NEVER - 1, MPI_COMM_WORLD, &flag, MPI_STATUS_IGNORE);
    }
    for (int i = 0; i < IDLE; i++) {
        MPI_Status status;
        int cancelled;
        MPI_Cancel(&idle[i]);
        MPI_Wait(&idle[i], &status);
        MPI_Test_cancelled(&status, &cancelled);
        VF_REQUIRE(cancelled, "receive %d, to which nothing was sent, could not be cancelled", i);
    }
}

/* Posts, cancels at once, and posts again until the message of `sequence` is there. */
static void race(int peer, uint64_t sequence, char *buffer)
{
    size_t length = length_of(peer, sequence);
    int flag;
    for (int patience = 0;; patience++) {
        MPI_Request request;
        MPI_Status status;
        int cancelled;
        memset(buffer, 0x77, length + 1);
        MPI_Irecv(buffer, LONGEST, MPI_BYTE, peer, TAG, MPI_COMM_WORLD, &request);
        /* Lets the message come nearer, by a little more each time, without waiting for it. */
        for (int i = 0; i < patience; i++) {
            MPI_Iprobe(peer, NEVER - 1, MPI_COMM_WORLD, &flag, MPI_STATUS_IGNORE);
        }
        MPI_Cancel(&request);
        MPI_Wait(&request, &status);
        MPI_Test_cancelled(&status, &cancelled);
        if (!cancelled) {
            vf_check_status(&status, peer, TAG, length);
            vf_check(buffer, length, peer, TAG, sequence);
            vf_check_untouched(buffer + length, 1, 0x77);
            return;
        }
        vf_check_untouched(buffer, length + 1, 0x77);
    }
}

int main(int argc, char **argv)
{
    vf_start("cancelled", &argc, &argv, MPI_THREAD_SINGLE);
    VF_REQUIRE(vf.ranks % 2 == 0, "needs an even number of ranks");
    int peer = vf.rank ^ 1;
    char *incoming = vf_alloc((size_t)IDLE * LONGEST + 1);
    char *outgoing = vf_alloc((size_t)RACES * LONGEST);
    MPI_Request sends[RACES];
    uint64_t sent = 0, received = 0;

    while (vf_more()) {
        cancel_idle(peer, incoming);
        for (int i = 0; i < RACES; i++, sent++) {
            size_t length = length_of(vf.rank, sent);
            char *out = outgoing + (size_t)i * LONGEST;
            vf_fill(out, length, vf.rank, TAG, sent);
            MPI_Isend(out, (int)length, MPI_BYTE, peer, TAG, MPI_COMM_WORLD, &sends[i]);
        }
        for (int i = 0; i < RACES; i++, received++) {
            race(peer, received, incoming);
        }
        MPI_Waitall(RACES, sends, MPI_STATUSES_IGNORE);
    }
    return vf_finish();
}
