/* Promise: a rank may start other programs while its transport changes, which have the library
 * preloaded as it has: by system, by popen, by fork and exec; some use threads, and one, given by
 * --user PATH, uses UCX itself and is a member of the gang for a moment. All end well, and what the
 * ranks say to each other meanwhile stays right.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BYTES = 20000, TAG = 1, STATUS = 42 };

static void *in_thread(void *argument)
{
    free(malloc(100000));
    return argument;
}

/* What the child does that is this program again. */
static int as_child(void)
{
    static int given;
    pthread_t thread;
    void *result;
    if (pthread_create(&thread, NULL, in_thread, &given) != 0) {
        return 1;
    }
    pthread_join(thread, &result);
    return result == &given ? STATUS : 2;
}

static void run(char *const arguments[], int expected)
{
    int status;
    pid_t child = fork();
    VF_REQUIRE(child >= 0, "fork failed");
    if (child == 0) {
        execv(arguments[0], arguments);
        _exit(3);
    }
    VF_REQUIRE(waitpid(child, &status, 0) == child && WIFEXITED(status) &&
                   WEXITSTATUS(status) == expected,
               "%s ended with status %x", arguments[0], (unsigned)status);
}

static void start_one(int kind, char *self, char *user)
{
    char line[32] = "";
    switch (kind) {
    case 0:
        VF_REQUIRE(system("true") == 0, "system failed");
        break;
    case 1: {
        FILE *pipe = popen("echo said by a child", "r");
        VF_REQUIRE(pipe && fgets(line, sizeof line, pipe) && pclose(pipe) == 0 &&
                       strcmp(line, "said by a child\n") == 0,
                   "popen gave \"%s\"", line);
        break;
    }
    case 2:
        run((char *[]){self, "--child", "1", NULL}, STATUS);
        break;
    default:
        run((char *[]){user, "--alone", "1", "--rounds", "2", NULL}, 0);
    }
}

int main(int argc, char **argv)
{
    char *user = NULL;
    vf.argc = argc;
    vf.argv = argv;
    if (vf_option("--child", 0) != 0) {
        return as_child();
    }
    for (int i = 1; i + 1 < argc; i++) {
        user = strcmp(argv[i], "--user") == 0 ? argv[i + 1] : user;
    }
    vf_start("children", &argc, &argv, MPI_THREAD_SINGLE);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *out = vf_alloc(BYTES), *in = vf_alloc(BYTES);
    while (vf_more()) {
        MPI_Request receive;
        vf_fill(out, BYTES, vf.rank, TAG, (uint64_t)vf.round);
        MPI_Irecv(in, BYTES, MPI_BYTE, left, TAG, MPI_COMM_WORLD, &receive);
        if (vf.round % 10 == 3 * vf.rank % 10) {
            start_one((int)(vf.round / 10 % (user ? 4 : 3)), argv[0], user);
        }
        MPI_Send(out, BYTES, MPI_BYTE, right, TAG, MPI_COMM_WORLD);
        MPI_Wait(&receive, MPI_STATUS_IGNORE);
        vf_check(in, BYTES, left, TAG, (uint64_t)vf.round);
    }
    return vf_finish();
}
