/* Promise: a ring exchanges 8 KB halos with both neighbours, step by step, each checked. Also the
 * benchmark for the stall of a switch: with --benchmark the pattern is checked in its first word
 * only and each rank tells its median and longest step.
 * Options: --bytes B (default 8192), --benchmark 1.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    vf_start("halo", &argc, &argv, MPI_THREAD_SINGLE);
    size_t bytes = (size_t)vf_option("--bytes", 8192);
    int benchmark = vf_option("--benchmark", 0) > 0;
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    char *memory = vf_alloc(4 * bytes);
    char *to_left = memory, *to_right = to_left + bytes;
    char *from_left = to_right + bytes, *from_right = from_left + bytes;
    enum { STEPS = 100, KEPT = 1 << 20 };
    double *times = vf_alloc(KEPT * sizeof *times);
    uint64_t step = 0;

    while (vf_more()) {
        for (int i = 0; i < STEPS; i++, step++) {
            size_t checked = benchmark && bytes > 8 ? 8 : bytes;
            MPI_Request requests[4];
            vf_fill(to_left, checked, vf.rank, 0, step);
            vf_fill(to_right, checked, vf.rank, 1, step);
            double start = vf_now();
            MPI_Irecv(from_left, (int)bytes, MPI_BYTE, left, 1, MPI_COMM_WORLD, &requests[0]);
            MPI_Irecv(from_right, (int)bytes, MPI_BYTE, right, 0, MPI_COMM_WORLD, &requests[1]);
            MPI_Isend(to_left, (int)bytes, MPI_BYTE, left, 0, MPI_COMM_WORLD, &requests[2]);
            MPI_Isend(to_right, (int)bytes, MPI_BYTE, right, 1, MPI_COMM_WORLD, &requests[3]);
            MPI_Waitall(4, requests, MPI_STATUSES_IGNORE);
            times[step % KEPT] = vf_now() - start;
            vf_check(from_left, checked, left, 1, step);
            vf_check(from_right, checked, right, 0, step);
        }
    }
    if (benchmark) {
        size_t kept = step < KEPT ? step : KEPT;
        qsort(times, kept, sizeof *times, by_value);
        printf("{\"program\":\"halo\",\"rank\":%d,\"steps\":%llu,\"median_us\":%.2f,"
               "\"p99_us\":%.2f,\"longest_us\":%.2f}\n",
               vf.rank, (unsigned long long)step, times[kept / 2] * 1e6,
               times[kept - 1 - kept / 100] * 1e6, times[kept - 1] * 1e6);
        fflush(stdout);
    }
    return vf_finish();
}
