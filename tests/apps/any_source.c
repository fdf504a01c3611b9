/* Promise: under ANY_SOURCE the messages of one sender match in the order in which they were
 * sent, whatever other senders do meanwhile: receives taken in the order of their posting show
 * rising sequence numbers for each source, none missing, none twice. The receiver changes every
 * round.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { PER_SENDER = 64, LONGEST = 32 * 1024, TAG = 5 };

static size_t length_of(int source, uint64_t sequence)
{
    uint64_t hash = vf_hash((uint64_t)source, sequence, 21);
    return hash % 10 == 0 ? hash / 16 % LONGEST : hash / 16 % 300;
}

static void receive_all(int wildcard_tag, char *incoming, MPI_Request *receives,
                        MPI_Status *statuses, uint64_t *next)
{
    int messages = PER_SENDER * (vf.ranks - 1);
    /* Half of the receives are posted early, half after the first messages are there. */
    for (int i = 0; i < messages; i++) {
        if (i == messages / 2) {
            MPI_Wait(&receives[0], &statuses[0]);
        }
        MPI_Irecv(incoming + (size_t)i * LONGEST, LONGEST, MPI_BYTE, MPI_ANY_SOURCE,
                  wildcard_tag ? MPI_ANY_TAG : TAG, MPI_COMM_WORLD, &receives[i]);
    }
    MPI_Waitall(messages - 1, receives + 1, statuses + 1);
    for (int i = 0; i < messages; i++) {
        int source = statuses[i].MPI_SOURCE;
        VF_REQUIRE(source >= 0 && source < vf.ranks, "status names source %d", source);
        uint64_t expected = next[source]++;
        vf_check_status(&statuses[i], source, TAG, length_of(source, expected));
        vf_check(incoming + (size_t)i * LONGEST, length_of(source, expected), source, TAG,
                 expected);
    }
}

int main(int argc, char **argv)
{
    vf_start("any_source", &argc, &argv, MPI_THREAD_SINGLE);
    int messages = PER_SENDER * (vf.ranks - 1);
    char *memory = vf_alloc((size_t)messages * LONGEST);
    MPI_Request *requests = vf_alloc((size_t)messages * sizeof *requests);
    MPI_Status *statuses = vf_alloc((size_t)messages * sizeof *statuses);
    /* Sequence numbers count per pair: mine towards each receiver, each sender's towards me. */
    uint64_t *sent = vf_alloc((size_t)vf.ranks * sizeof *sent);
    uint64_t *next = vf_alloc((size_t)vf.ranks * sizeof *next);

    while (vf_more()) {
        int receiver = (int)(vf.round % vf.ranks);
        if (vf.rank == receiver) {
            receive_all(vf.round % 3 == 0, memory, requests, statuses, next);
        } else {
            for (int i = 0; i < PER_SENDER; i++) {
                uint64_t sequence = sent[receiver]++;
                size_t length = length_of(vf.rank, sequence);
                char *out = memory + (size_t)i * LONGEST;
                vf_fill(out, length, vf.rank, TAG, sequence);
                MPI_Isend(out, (int)length, MPI_BYTE, receiver, TAG, MPI_COMM_WORLD,
                          &requests[i]);
            }
            MPI_Waitall(PER_SENDER, requests, MPI_STATUSES_IGNORE);
        }
    }
    return vf_finish();
}
