/* Promise: the application's signal handlers run on threads that would run them without the
 * library, never on its helpers, and interrupt nothing that matters: SIGALRM comes every
 * millisecond, SIGUSR2 from a thread without a pause to breathe, and half of the time the main
 * thread blocks both, so that any other thread that does not would get them.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <unistd.h>

enum { BYTES = 20000, TAG = 1 };

static volatile sig_atomic_t handled, by_helper, over;

static void on_signal(int number)
{
    char name[16] = "";
    (void)number;
    prctl(PR_GET_NAME, name);
    handled++;
    if (strncmp(name, "symvirt", 7) == 0) {
        by_helper++;
    }
}

static void *storm(void *set)
{
    pthread_sigmask(SIG_BLOCK, set, NULL);
    while (!over) {
        struct timespec pause = {0, 200000};
        kill(getpid(), SIGUSR2);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    vf_start("signals", &argc, &argv, MPI_THREAD_SINGLE);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *out = vf_alloc(BYTES), *in = vf_alloc(BYTES);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigaddset(&set, SIGUSR2);
    pthread_t thread;
    VF_REQUIRE(pthread_create(&thread, NULL, storm, &set) == 0, "no thread");
    struct itimerval every = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &every, NULL);
    while (vf_more()) {
        if (vf.round % 200 == 0) {
            pthread_sigmask(vf.round % 400 == 0 ? SIG_UNBLOCK : SIG_BLOCK, &set, NULL);
        }
        vf_fill(out, BYTES, vf.rank, TAG, (uint64_t)vf.round);
        MPI_Sendrecv(out, BYTES, MPI_BYTE, right, TAG, in, BYTES, MPI_BYTE, left, TAG,
                     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        vf_check(in, BYTES, left, TAG, (uint64_t)vf.round);
        VF_REQUIRE(!by_helper, "%d of %d signals were handled by a helper", (int)by_helper,
                   (int)handled);
    }
    over = 1;
    pthread_join(thread, NULL);
    setitimer(ITIMER_REAL, &never, NULL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    VF_REQUIRE(handled > 0, "no signal was handled");
    return vf_finish();
}
