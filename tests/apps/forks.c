/* Promise: a rank may fork, with and without exec, while its transport changes: the child runs
 * and ends without harm to itself or to its parent, whose messages stay right.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"
#include <sys/wait.h>
#include <unistd.h>

/* The child of a plain fork has one thread, and must not be taken for a rank. */
static void fork_and_wait(void)
{
    int status;
    pid_t child = fork();
    VF_REQUIRE(child >= 0, "fork failed");
    if (child == 0) {
        char *memory = malloc(100000);
        memset(memory, 1, 100000);
        free(memory);
        _exit(memory ? 42 : 1);
    }
    VF_REQUIRE(waitpid(child, &status, 0) == child && WIFEXITED(status) &&
                   WEXITSTATUS(status) == 42,
               "the forked child ended with status %x", (unsigned)status);
}

int main(int argc, char **argv)
{
    enum { BYTES = 20000 };
    vf_start("forks", &argc, &argv, MPI_THREAD_SINGLE);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *out = vf_alloc(BYTES), *in = vf_alloc(BYTES);
    while (vf_more()) {
        MPI_Request receive;
        vf_fill(out, BYTES, vf.rank, 1, (uint64_t)vf.round);
        MPI_Irecv(in, BYTES, MPI_BYTE, left, 1, MPI_COMM_WORLD, &receive);
        if (vf.round % 20 == vf.rank) {
            fork_and_wait();
        }
        if (vf.round % 100 == vf.rank) {
            VF_REQUIRE(system("true") == 0, "system failed");
        }
        MPI_Send(out, BYTES, MPI_BYTE, right, 1, MPI_COMM_WORLD);
        MPI_Wait(&receive, MPI_STATUS_IGNORE);
        vf_check(in, BYTES, left, 1, (uint64_t)vf.round);
    }
    return vf_finish();
}
