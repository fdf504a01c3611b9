/* Promise: threads that come and go, wave after wave, are no hindrance to a switch and not hindered
 * by one, at every level of threads. Options: --level L: 1 only the main thread calls MPI, the
 * others fill and check; 2 they call it in turns; 3 all at once. --threads T (default 6).
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"
#include <pthread.h>

enum { MOST = 32, LENGTH = 9000, PER_WAVE = 3 };

static int level;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

struct worker {
    pthread_t thread;
    int index, filling;
    char out[LENGTH], in[LENGTH];
};

static void take_turn(void)
{
    if (level == 2) {
        pthread_mutex_lock(&turn);
    }
}

static void end_turn(void)
{
    if (level == 2) {
        pthread_mutex_unlock(&turn);
    }
}

/* Non-blocking, so that nobody keeps a turn while it waits. */
static void exchange(struct worker *worker)
{
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks, done = 0;
    MPI_Request requests[2];
    take_turn();
    MPI_Irecv(worker->in, LENGTH, MPI_BYTE, left, worker->index, MPI_COMM_WORLD, &requests[0]);
    MPI_Isend(worker->out, LENGTH, MPI_BYTE, right, worker->index, MPI_COMM_WORLD, &requests[1]);
    end_turn();
    while (!done) {
        take_turn();
        MPI_Testall(2, requests, &done, MPI_STATUSES_IGNORE);
        end_turn();
    }
}

static uint64_t sequence_of(int i)
{
    return (uint64_t)vf.round * PER_WAVE + (uint64_t)i;
}

static void *run(void *argument)
{
    struct worker *worker = argument;
    int left = (vf.rank + vf.ranks - 1) % vf.ranks;
    if (level == 1) {
        if (worker->filling) {
            vf_fill(worker->out, LENGTH, vf.rank, worker->index, sequence_of(0));
        } else {
            vf_check(worker->in, LENGTH, left, worker->index, sequence_of(0));
        }
        return NULL;
    }
    for (int i = 0; i < PER_WAVE; i++) {
        vf_fill(worker->out, LENGTH, vf.rank, worker->index, sequence_of(i));
        exchange(worker);
        vf_check(worker->in, LENGTH, left, worker->index, sequence_of(i));
    }
    return NULL;
}

static void wave(struct worker *workers, int threads)
{
    for (int i = 0; i < threads; i++) {
        VF_REQUIRE(pthread_create(&workers[i].thread, NULL, run, &workers[i]) == 0,
                   "thread %d could not be created", i);
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
    }
}

int main(int argc, char **argv)
{
    static struct worker workers[MOST];
    static const int levels[] = {MPI_THREAD_SINGLE, MPI_THREAD_FUNNELED, MPI_THREAD_SERIALIZED,
                                 MPI_THREAD_MULTIPLE};
    vf.argc = argc;
    vf.argv = argv;
    level = (int)vf_option("--level", 3);
    vf_start("waves", &argc, &argv, levels[level]);
    int threads = (int)vf_option("--threads", 6);
    VF_REQUIRE(threads >= 1 && threads <= MOST, "--threads must be 1 to %d", MOST);
    while (vf_more()) {
        for (int i = 0; i < threads; i++) {
            workers[i].index = i;
            workers[i].filling = 1;
        }
        wave(workers, threads);
        if (level == 1) {
            for (int i = 0; i < threads; i++) {
                exchange(&workers[i]);
                workers[i].filling = 0;
            }
            wave(workers, threads);
        }
    }
    return vf_finish();
}
