/* Promise: with MPI_THREAD_MULTIPLE several threads of a rank are inside MPI at once, each on
 * its own communicator, with eager, rendezvous, probed and collective traffic, and none disturbs
 * or waits for another across a switch.
 * Option: --threads T (default 3).
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"
#include <pthread.h>

enum { MOST = 16, WINDOW = 8, LONGEST = 80 * 1024 };

struct lane {
    pthread_t thread;
    MPI_Comm comm;
    int index;
    double end;
};

static size_t length_of(int source, int lane, uint64_t sequence)
{
    uint64_t hash = vf_hash((uint64_t)source, (uint64_t)lane, sequence);
    return hash % 8 == 0 ? hash / 8 % LONGEST : hash / 8 % 1000;
}

static void exchange(struct lane *lane, uint64_t first, char *memory)
{
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    MPI_Request sends[WINDOW];
    for (int i = 0; i < WINDOW; i++) {
        uint64_t sequence = first + (uint64_t)i;
        size_t length = length_of(vf.rank, lane->index, sequence);
        char *out = memory + (size_t)i * LONGEST;
        vf_fill(out, length, vf.rank, lane->index, sequence);
        MPI_Isend(out, (int)length, MPI_BYTE, right, lane->index, lane->comm, &sends[i]);
    }
    char *in = memory + (size_t)WINDOW * LONGEST;
    for (int i = 0; i < WINDOW; i++) {
        uint64_t sequence = first + (uint64_t)i;
        size_t length = length_of(left, lane->index, sequence);
        MPI_Status status;
        if ((i + lane->index) % 3 == 0) {
            MPI_Message message;
            MPI_Mprobe(left, lane->index, lane->comm, &message, MPI_STATUS_IGNORE);
            MPI_Mrecv(in, LONGEST, MPI_BYTE, &message, &status);
        } else {
            MPI_Recv(in, LONGEST, MPI_BYTE, left, lane->index, lane->comm, &status);
        }
        vf_check_status(&status, left, lane->index, length);
        vf_check(in, length, left, lane->index, sequence);
    }
    MPI_Waitall(WINDOW, sends, MPI_STATUSES_IGNORE);
}

static void *run(void *argument)
{
    struct lane *lane = argument;
    char *memory = vf_alloc((WINDOW + 1) * (size_t)LONGEST);
    uint64_t sequence = 0;
    for (int more = 1; more;) {
        exchange(lane, sequence, memory);
        sequence += WINDOW;
        long mine = (long)sequence + vf.rank, sum;
        MPI_Allreduce(&mine, &sum, 1, MPI_LONG, MPI_SUM, lane->comm);
        long expected = (long)sequence * vf.ranks + (long)vf.ranks * (vf.ranks - 1) / 2;
        VF_REQUIRE(sum == expected, "thread %d: allreduce says %ld, expected %ld", lane->index,
                   sum, expected);
        more = vf.rounds ? (long)(sequence / WINDOW) < vf.rounds : vf_now() < lane->end;
        MPI_Bcast(&more, 1, MPI_INT, 0, lane->comm);
    }
    free(memory);
    return NULL;
}

int main(int argc, char **argv)
{
    vf_start("threads", &argc, &argv, MPI_THREAD_MULTIPLE);
    int threads = (int)vf_option("--threads", 3);
    VF_REQUIRE(threads >= 1 && threads <= MOST, "--threads must be 1 to %d", MOST);
    struct lane lanes[MOST];
    for (int i = 0; i < threads; i++) {
        lanes[i].index = i;
        lanes[i].end = vf.start + vf.seconds;
        MPI_Comm_dup(MPI_COMM_WORLD, &lanes[i].comm);
    }
    for (int i = 0; i < threads; i++) {
        VF_REQUIRE(pthread_create(&lanes[i].thread, NULL, run, &lanes[i]) == 0,
                   "thread %d could not be created", i);
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(lanes[i].thread, NULL);
        MPI_Comm_free(&lanes[i].comm);
    }
    return vf_finish();
}
