/* Promise: a rank that dies from SIGKILL, at any moment of a switch, ends the job as it would
 * without the library: nothing hangs. The last rank kills itself from a thread of its own after
 * --after S seconds (default 1), in the middle of whatever the others, or its own switch, do.
 * This program never says OK: it is right when it ends with a failure, in time.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

static void *killer(void *argument)
{
    double after = *(double *)argument;
    struct timespec delay = {(time_t)after, (long)((after - (double)(time_t)after) * 1e9)};
    nanosleep(&delay, NULL);
    kill(getpid(), SIGKILL);
    return NULL;
}

int main(int argc, char **argv)
{
    enum { BYTES = 30000 };
    vf_start("killed", &argc, &argv, MPI_THREAD_SINGLE);
    double after = vf_option("--after", 1);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *out = vf_alloc(BYTES), *in = vf_alloc(BYTES);
    vf.seconds = after + 60;
    MPI_Barrier(MPI_COMM_WORLD);
    pthread_t thread;
    if (vf.rank == vf.ranks - 1) {
        VF_REQUIRE(pthread_create(&thread, NULL, killer, &after) == 0, "no thread");
    }
    while (vf_more()) {
        vf_fill(out, BYTES, vf.rank, 1, (uint64_t)vf.round);
        MPI_Sendrecv(out, BYTES, MPI_BYTE, right, 1, in, BYTES, MPI_BYTE, left, 1, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
        vf_check(in, BYTES, left, 1, (uint64_t)vf.round);
    }
    return vf_finish();
}
