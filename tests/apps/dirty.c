/* Promise: pages that are written all the time hold what was written to them last, wherever their
 * machine is taken, while 8 KB halos are exchanged; both are checked.
 * Options: --megabytes M that are written to in turn (default 64), --pages N in each step (default 16).
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { STEPS = 20, HALO = 8192, PAGE = 4096 };

/* Writes the next page of a store, which must hold what it was filled with a turn ago. */
static void turn_page(char *store, size_t pages, uint64_t written)
{
    char *page = store + written % pages * PAGE;
    if (written >= pages) {
        vf_check(page, PAGE, vf.rank, 9, written - pages);
    }
    vf_fill(page, PAGE, vf.rank, 9, written);
}

int main(int argc, char **argv)
{
    vf_start("dirty", &argc, &argv, MPI_THREAD_SINGLE);
    size_t pages = (size_t)vf_option("--megabytes", 64) * 256;
    int each = (int)vf_option("--pages", 16);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *store = vf_alloc(pages * PAGE), *out = vf_alloc(HALO), *in = vf_alloc(HALO);
    uint64_t step = 0, written = 0;

    while (vf_more()) {
        for (int i = 0; i < STEPS; i++, step++) {
            vf_fill(out, HALO, vf.rank, 0, step);
            MPI_Sendrecv(out, HALO, MPI_BYTE, right, 0, in, HALO, MPI_BYTE, left, 0, MPI_COMM_WORLD,
                         MPI_STATUS_IGNORE);
            vf_check(in, HALO, left, 0, step);
            for (int page = 0; page < each; page++) {
                turn_page(store, pages, written++);
            }
        }
    }
    return vf_finish();
}
