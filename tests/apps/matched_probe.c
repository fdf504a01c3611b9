/* Promise: probes tell the truth. Mprobe/Improbe/Probe/Iprobe with ANY_SOURCE and ANY_TAG report
 * source, tag and length of the message that is then received, each message is found exactly
 * once, and the messages of one source are found in the order in which they were sent, also
 * those that a switch drained.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { PER_PEER = 24, LONGEST = 160 * 1024, TAGS = 5 };

static size_t length_of(int source, uint64_t sequence)
{
    uint64_t hash = vf_hash((uint64_t)source, sequence, 11);
    return hash % 8 == 0 ? hash / 8 % LONGEST : hash / 8 % 1500;
}

static int tag_of(int source, uint64_t sequence)
{
    return (int)(vf_hash((uint64_t)source, sequence, 12) % TAGS);
}

/* Finds one message in one of four ways and receives it into `buffer`. */
static MPI_Status next_message(MPI_Comm comm, int way, char *buffer)
{
    MPI_Status probed, received;
    MPI_Message message = MPI_MESSAGE_NULL;
    int found = 0, matched = way == 0 || way == 1, count;
    switch (way) {
    case 0:
        MPI_Mprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm, &message, &probed);
        break;
    case 1:
        while (!found) {
            MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm, &found, &message, &probed);
        }
        break;
    case 2:
        MPI_Probe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm, &probed);
        break;
    default:
        while (!found) {
            MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm, &found, &probed);
        }
    }
    MPI_Get_count(&probed, MPI_BYTE, &count);
    if (matched && count % 2) {
        MPI_Request request;
        MPI_Imrecv(buffer, count, MPI_BYTE, &message, &request);
        MPI_Wait(&request, &received);
    } else if (matched) {
        MPI_Mrecv(buffer, count, MPI_BYTE, &message, &received);
    } else {
        MPI_Recv(buffer, count, MPI_BYTE, probed.MPI_SOURCE, probed.MPI_TAG, comm, &received);
    }
    vf_check_status(&received, probed.MPI_SOURCE, probed.MPI_TAG, (size_t)count);
    return received;
}

int main(int argc, char **argv)
{
    vf_start("matched_probe", &argc, &argv, MPI_THREAD_SINGLE);
    int peers = vf.ranks - 1, messages = PER_PEER * peers;
    char *outgoing = vf_alloc((size_t)messages * LONGEST), *incoming = vf_alloc(LONGEST);
    MPI_Request *sends = vf_alloc((size_t)messages * sizeof *sends);
    uint64_t *next = vf_alloc((size_t)vf.ranks * sizeof *next);
    uint64_t sequence = 0;
    MPI_Comm comm;
    /* A communicator of its own: every message on it is one of ours. */
    MPI_Comm_dup(MPI_COMM_WORLD, &comm);

    while (vf_more()) {
        int posted = 0;
        for (int i = 0; i < PER_PEER; i++, sequence++) {
            for (int step = 1; step <= peers; step++, posted++) {
                size_t length = length_of(vf.rank, sequence);
                int tag = tag_of(vf.rank, sequence);
                char *out = outgoing + (size_t)posted * LONGEST;
                vf_fill(out, length, vf.rank, tag, sequence);
                MPI_Isend(out, (int)length, MPI_BYTE, (vf.rank + step) % vf.ranks, tag, comm,
                          &sends[posted]);
            }
        }
        for (int i = 0; i < messages; i++) {
            MPI_Status status = next_message(comm, (int)(vf.round + i) % 4, incoming);
            int source = status.MPI_SOURCE;
            uint64_t expected = next[source]++;
            vf_check_status(&status, source, tag_of(source, expected),
                            length_of(source, expected));
            vf_check(incoming, length_of(source, expected), source, tag_of(source, expected),
                     expected);
        }
        /* Nobody sends for the next round before everybody has taken all of this one: a wildcard
         * probe would take the next one's in place of this one's, whose sender waits for it. */
        MPI_Barrier(MPI_COMM_WORLD);
        MPI_Waitall(messages, sends, MPI_STATUSES_IGNORE);
    }
    MPI_Comm_free(&comm);
    return vf_finish();
}
