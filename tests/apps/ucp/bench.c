/* Measures the cost of a message at the UCP level, where the library's share is largest.
 *
 *   --alone 1       8-byte messages to itself: a receive and a send a message
 *   (default)       8-byte ping-pong between two processes
 *   --stream 1      1 MiB messages in one direction, a window of them in flight
 *
 * Times are taken over batches; the median and the shortest batch are printed as one JSON line,
 * in nanoseconds a message. The shortest says what the code costs, the median what one gets.
 * Options: --bytes B, --batch N messages, --batches N, --seconds S (whichever ends first).
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "pair.h"

enum { WINDOW = 8, MOST_BATCHES = 1 << 16 };
static const ucp_request_param_t NONE;
static const ucp_tag_t WHOLE = ~(ucp_tag_t)0;

static inline void *receive(void *buffer, size_t bytes)
{
    return ucp_tag_recv_nbx(up.worker, buffer, bytes, 1, WHOLE, &NONE);
}

static inline void *dispatch(const void *buffer, size_t bytes)
{
    return ucp_tag_send_nbx(up.ep, buffer, bytes, 1, &NONE);
}

static void to_itself(char *out, char *in, size_t bytes, long batch)
{
    for (long i = 0; i < batch; i++) {
        void *received = receive(in, bytes);
        up_finish(dispatch(out, bytes), "send");
        up_finish(received, "receive");
    }
}

static void ping_pong(char *out, char *in, size_t bytes, long batch)
{
    for (long i = 0; i < batch; i++) {
        void *received = receive(in, bytes);
        if (up.me == 0) {
            up_finish(dispatch(out, bytes), "send");
            up_finish(received, "receive");
        } else {
            up_finish(received, "receive");
            up_finish(dispatch(out, bytes), "send");
        }
    }
}

static void stream(char *out, char *in, size_t bytes, long batch)
{
    void *requests[WINDOW] = {NULL};
    for (long i = 0; i < batch + WINDOW; i++) {
        void **request = &requests[i % WINDOW];
        up_finish(*request, "stream");
        *request = NULL;
        if (i < batch) {
            size_t at = (size_t)(i % WINDOW) * bytes;
            *request = up.me == 0 ? dispatch(out + at, bytes) : receive(in + at, bytes);
        }
    }
    /* The batch ends when the receiver has everything. */
    void *last = up.me == 0 ? receive(in, 8) : dispatch(out, 8);
    up_finish(last, "acknowledgement");
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
    int alone = vf_option("--alone", 0) > 0, streams = vf_option("--stream", 0) > 0;
    up_start("bench", alone, 0, NULL, argc, argv);
    size_t bytes = (size_t)vf_option("--bytes", streams ? 1 << 20 : 8);
    long batch = (long)vf_option("--batch", streams ? 64 : 1000);
    long batches = (long)vf_option("--batches", MOST_BATCHES);
    VF_REQUIRE(batches >= 1 && batches <= MOST_BATCHES, "--batches must be 1 to %d", MOST_BATCHES);
    double *times = vf_alloc((size_t)batches * sizeof *times);
    char *out = vf_alloc(WINDOW * bytes + 8), *in = vf_alloc(WINDOW * bytes + 8);
    memset(out, 1, WINDOW * bytes);
    memset(in, 1, WINDOW * bytes);
    long done = 0;
    for (; done < batches && up_more(); done++) {
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
        vf.bytes += (uint64_t)batch * bytes;
    }
    if (up.me == 0) {
        /* The first batches warm up: wire-up, caches, registrations. */
        long warm = done > 10 ? done / 10 : 0;
        qsort(times + warm, (size_t)(done - warm), sizeof *times, by_value);
        printf("{\"program\":\"bench\",\"bytes\":%zu,\"batches\":%ld,\"median_ns\":%.2f,"
               "\"shortest_ns\":%.2f}\n",
               bytes, done - warm, times[warm + (done - warm) / 2], times[warm]);
        fflush(stdout);
    }
    return up_end();
}
