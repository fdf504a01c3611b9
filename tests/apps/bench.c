/* Measures the cost of a message at the MPI level, as an application sees it.
 *
 *   1 rank          8-byte messages to itself (MPI_COMM_SELF)
 *   2 ranks         8-byte ping-pong
 *   --stream 1      1 MiB messages from rank 0 to rank 1, a window of them in flight
 *   --put 1, --get 1, --fetch 1
 *                   8 bytes in a window of the last rank, put, got or fetched and added to by
 *                   rank 0, each flushed
 *   --threads 1     as without it, in a program that asked for MPI_THREAD_MULTIPLE
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

enum access { NONE, PUT, GET, FETCH };

static MPI_Win window_of(char **memory, int bytes)
{
    MPI_Win window;
    MPI_Win_allocate(bytes, 1, MPI_INFO_NULL, MPI_COMM_WORLD, memory, &window);
    memset(*memory, 0, (size_t)bytes);
    MPI_Win_lock_all(MPI_MODE_NOCHECK, window);
    MPI_Barrier(MPI_COMM_WORLD);
    return window;
}

static void reach(enum access access, MPI_Win window, char *out, char *in, int bytes, long batch)
{
    int target = vf.ranks - 1;
    for (long i = 0; vf.rank == 0 && i < batch; i++) {
        switch (access) {
        case PUT:
            MPI_Put(out, bytes, MPI_BYTE, target, 0, bytes, MPI_BYTE, window);
            break;
        case GET:
            MPI_Get(in, bytes, MPI_BYTE, target, 0, bytes, MPI_BYTE, window);
            break;
        default:
            MPI_Fetch_and_op(out, in, MPI_INT64_T, target, 0, MPI_SUM, window);
        }
        MPI_Win_flush(target, window);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    vf.argc = argc;
    vf.argv = argv;
    int level = vf_option("--threads", 0) > 0 ? MPI_THREAD_MULTIPLE : MPI_THREAD_SINGLE;
    vf_start("bench", &argc, &argv, level);
    VF_REQUIRE(vf.ranks <= 2, "measures between 2 ranks at most");
    enum access access = vf_option("--put", 0) > 0     ? PUT
                         : vf_option("--get", 0) > 0   ? GET
                         : vf_option("--fetch", 0) > 0 ? FETCH
                                                       : NONE;
    int alone = vf.ranks == 1, streams = vf_option("--stream", 0) > 0;
    int bytes = (int)vf_option("--bytes", streams ? 1 << 20 : 8);
    long batch = (long)vf_option("--batch", streams ? 64 : 1000);
    double *times = vf_alloc(MOST_BATCHES * sizeof *times);
    char *out = vf_alloc(WINDOW * (size_t)bytes), *in = vf_alloc(WINDOW * (size_t)bytes);
    memset(out, 1, WINDOW * (size_t)bytes);
    memset(in, 1, WINDOW * (size_t)bytes);
    char *memory = NULL;
    MPI_Win window = access == NONE ? MPI_WIN_NULL : window_of(&memory, bytes);
    vf.start = vf_now();
    long done = 0;
    for (; done < MOST_BATCHES && vf_more(); done++) {
        double start = vf_now();
        if (access != NONE) {
            reach(access, window, out, in, bytes, batch);
        } else if (alone) {
            to_itself(out, in, bytes, batch);
        } else if (streams) {
            stream(out, in, bytes, batch);
        } else {
            ping_pong(out, in, bytes, batch);
        }
        times[done] = (vf_now() - start) * 1e9 / (double)batch / (alone || streams || access != NONE ? 1 : 2);
        vf.messages += (uint64_t)batch;
        vf.bytes += (uint64_t)batch * (uint64_t)bytes;
    }
    if (access != NONE) {
        /* The last rank's memory says how often it was added to. */
        MPI_Win_unlock_all(window);
        MPI_Barrier(MPI_COMM_WORLD);
        int64_t sum = 0, one = 0;
        memcpy(&sum, memory, sizeof sum);
        memcpy(&one, out, sizeof one);
        VF_REQUIRE(access != FETCH || vf.rank != vf.ranks - 1 ||
                       (uint64_t)sum == (uint64_t)one * (uint64_t)(done * batch),
                   "the sum is %lld", (long long)sum);
        MPI_Win_free(&window);
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
