/* Measures the cost of a message at the MPI level, as an application sees it.
 *
 *   1 rank          8-byte messages to itself (MPI_COMM_SELF)
 *   2 ranks         8-byte ping-pong
 *   --stream 1      1 MiB messages from rank 0 to rank 1, a window of them in flight
 *
 * Times are taken over batches; the median and the shortest batch are printed as one JSON line,
 * in nanoseconds a message. The shortest says what the code costs, the median what one gets.
 * Options: --bytes B, --batch N messages, --seconds S.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#define VF_FEWEST_RANKS 1
#include "verify.h"

enum { WINDOW = 8, MOST_BATCHES = 1 << 16, TAG = 1 };

static void to_itself(char *out, char *in, int bytes, long batch)
{
    for (long i = 0; i < batch; i++) {
        MPI_Request received;
        MPI_Irecv(in, bytes, MPI_BYTE, 0, TAG, MPI_COMM_SELF, &received);
        MPI_Send(out, bytes, MPI_BYTE, 0, TAG, MPI_COMM_SELF);
        MPI_Wait(&received, MPI_STATUS_IGNORE);
    }
}

static void ping_pong(char *out, char *in, int bytes, long batch)
{
    for (long i = 0; i < batch; i++) {
        if (vf.rank == 0) {
            MPI_Send(out, bytes, MPI_BYTE, 1, TAG, MPI_COMM_WORLD);
            MPI_Recv(in, bytes, MPI_BYTE, 1, TAG, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        } else {
            MPI_Recv(in, bytes, MPI_BYTE, 0, TAG, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            MPI_Send(out, bytes, MPI_BYTE, 0, TAG, MPI_COMM_WORLD);
        }
    }
}

static void stream(char *out, char *in, int bytes, long batch)
{
    MPI_Request requests[WINDOW];
    for (int i = 0; i < WINDOW; i++) {
        requests[i] = MPI_REQUEST_NULL;
    }
    for (long i = 0; i < batch; i++) {
        size_t at = (size_t)(i % WINDOW) * (size_t)bytes;
        MPI_Request *request = &requests[i % WINDOW];
        MPI_Wait(request, MPI_STATUS_IGNORE);
        if (vf.rank == 0) {
            MPI_Isend(out + at, bytes, MPI_BYTE, 1, TAG, MPI_COMM_WORLD, request);
        } else {
            MPI_Irecv(in + at, bytes, MPI_BYTE, 0, TAG, MPI_COMM_WORLD, request);
        }
    }
    for (int i = 0; i < WINDOW; i++) {
        MPI_Wait(&requests[i], MPI_STATUS_IGNORE);
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    vf_start("bench", &argc, &argv, MPI_THREAD_SINGLE);
    VF_REQUIRE(vf.ranks <= 2, "measures between 2 ranks at most");
    int alone = vf.ranks == 1, streams = vf_option("--stream", 0) > 0;
    int bytes = (int)vf_option("--bytes", streams ? 1 << 20 : 8);
    long batch = (long)vf_option("--batch", streams ? 64 : 1000);
    double *times = vf_alloc(MOST_BATCHES * sizeof *times);
    char *out = vf_alloc(WINDOW * (size_t)bytes), *in = vf_alloc(WINDOW * (size_t)bytes);
    memset(out, 1, WINDOW * (size_t)bytes);
    memset(in, 1, WINDOW * (size_t)bytes);
    long done = 0;
    for (; done < MOST_BATCHES && vf_more(); done++) {
        double start = vf_now();
        if (alone) {
            to_itself(out, in, bytes, batch);
        } else if (streams) {
            stream(out, in, bytes, batch);
        } else {
            ping_pong(out, in, bytes, batch);
        }
        times[done] = (vf_now() - start) * 1e9 / (double)batch / (alone || streams ? 1 : 2);
        vf.messages += (uint64_t)batch;
        vf.bytes += (uint64_t)batch * (uint64_t)bytes;
    }
    if (vf.rank == 0) {
        /* The first batches warm up: wire-up, caches, registrations. */
        long warm = done > 10 ? done / 10 : 0;
        qsort(times + warm, (size_t)(done - warm), sizeof *times, by_value);
        printf("{\"program\":\"bench\",\"bytes\":%d,\"batches\":%ld,\"median_ns\":%.2f,"
               "\"shortest_ns\":%.2f}\n",
               bytes, done - warm, times[warm + (done - warm) / 2], times[warm]);
        fflush(stdout);
    }
    return vf_finish();
}
