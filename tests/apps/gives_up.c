/* Promise: a rank that gives up, at any moment of a switch, ends the job as it would without the
 * library: nothing hangs. The last rank does so after --after S seconds (default 1), by --how H:
 * 0 MPI_Abort, 1 exit without MPI_Finalize, 2 _exit, 3 abort, 4 return from main with everything
 * open. This program never says OK: it is right when it ends with a failure, in time.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"
#include <sys/resource.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    enum { BYTES = 30000 };
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    vf_start("gives_up", &argc, &argv, MPI_THREAD_SINGLE);
    double after = vf_option("--after", 1);
    int how = (int)vf_option("--how", 0);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *out = vf_alloc(BYTES), *in = vf_alloc(BYTES);
    vf.seconds = after + 60;
    while (vf_more()) {
        vf_fill(out, BYTES, vf.rank, 1, (uint64_t)vf.round);
        MPI_Sendrecv(out, BYTES, MPI_BYTE, right, 1, in, BYTES, MPI_BYTE, left, 1, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
        vf_check(in, BYTES, left, 1, (uint64_t)vf.round);
        if (vf.rank == vf.ranks - 1 && vf_now() - vf.start > after) {
            switch (how) {
            case 0: MPI_Abort(MPI_COMM_WORLD, 7); break;
            case 1: exit(7); break;
            case 2: _exit(7); break;
            case 3: abort(); break;
            default: return 7;
            }
        }
    }
    return vf_finish();
}
