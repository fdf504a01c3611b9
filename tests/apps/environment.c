/* Promise: while UCX is rebuilt behind its back the application may change its environment: a
 * thread adds, changes and removes variables without a pause, so that libc moves the environment
 * about, and finds each as it left it.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"
#include <pthread.h>

enum { BYTES = 3000, VARIABLES = 300 };
static volatile int stop;

static void *change(void *nothing)
{
    char name[32], value[400];
    for (unsigned long turn = 0; !stop; turn++) {
        for (int i = 0; i < VARIABLES && !stop; i++) {
            snprintf(name, sizeof name, "VF_VARIABLE_%d", i);
            snprintf(value, sizeof value, "%0*lu", 20 + (int)((turn + (unsigned long)i) % 300), turn);
            VF_REQUIRE(setenv(name, value, 1) == 0, "setenv failed");
            const char *found = getenv(name);
            VF_REQUIRE(found && strcmp(found, value) == 0, "%s is %s", name, found ? found : "gone");
        }
        for (int i = 0; i < VARIABLES && !stop; i++) {
            snprintf(name, sizeof name, "VF_VARIABLE_%d", i);
            unsetenv(name);
            VF_REQUIRE(getenv(name) == NULL, "%s is still there", name);
        }
    }
    return nothing;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    vf_start("environment", &argc, &argv, MPI_THREAD_FUNNELED);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *out = vf_alloc(BYTES), *in = vf_alloc(BYTES);
    VF_REQUIRE(pthread_create(&thread, NULL, change, NULL) == 0, "no thread");
    while (vf_more()) {
        vf_fill(out, BYTES, vf.rank, 1, (uint64_t)vf.round);
        MPI_Sendrecv(out, BYTES, MPI_BYTE, right, 1, in, BYTES, MPI_BYTE, left, 1, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
        vf_check(in, BYTES, left, 1, (uint64_t)vf.round);
    }
    stop = 1;
    pthread_join(thread, NULL);
    return vf_finish();
}
