/* Promise: a rank that computes for a long time without any MPI call does not hold up a switch,
 * and a switch does not hold up the others: rank 0 computes (default: 20 s, --seconds) while the
 * other ranks ping-pong among themselves; the distribution of their gaps is printed. With two
 * ranks, rank 1 sends to itself. SIGUSR1 to rank 0 ends its computing. Before and after, all ranks exchange verified messages.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { BUCKETS = 24, STOP = 1, PING = 2, LONGEST = 4096 };

static void round_of_ring(uint64_t sequence)
{
    char out[LONGEST], in[LONGEST];
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    vf_fill(out, sizeof out, vf.rank, PING, sequence);
    MPI_Sendrecv(out, sizeof out, MPI_BYTE, right, PING, in, sizeof in, MPI_BYTE, left, PING,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    vf_check(in, sizeof in, left, PING, sequence);
}

static void compute(double seconds)
{
    volatile double x = 0.5;
    for (double end = vf_now() + seconds; !vf_stopped && vf_now() < end;) {
        for (int i = 0; i < 100000; i++) {
            x = 3.7 * x * (1 - x);
        }
    }
}

/* Each of the other ranks passes a token around the ring of ranks 1..n-1. */
static void play(MPI_Comm others, MPI_Request *stop)
{
    int rank, ranks, stopped = 0;
    long histogram[BUCKETS] = {0};
    double longest = 0, last = vf_now();
    MPI_Comm_rank(others, &rank);
    MPI_Comm_size(others, &ranks);
    for (uint64_t sequence = 0; !stopped; sequence++) {
        char out[64], in[64];
        int left = (rank + ranks - 1) % ranks, right = (rank + 1) % ranks;
        vf_fill(out, sizeof out, rank, 0, sequence);
        MPI_Sendrecv(out, sizeof out, MPI_BYTE, right, 0, in, sizeof in, MPI_BYTE, left, 0,
                     others, MPI_STATUS_IGNORE);
        vf_check(in, sizeof in, left, 0, sequence);
        double now = vf_now(), gap = now - last;
        int bucket = 0;
        for (double bound = 1e-6; bound < gap && bucket < BUCKETS - 1; bound *= 2) {
            bucket++;
        }
        histogram[bucket]++;
        longest = gap > longest ? gap : longest;
        last = now;
        /* All must leave in the same step: the first decides. Rarely, to keep the gaps short. */
        if (sequence % 256 == 255) {
            if (rank == 0) {
                MPI_Test(stop, &stopped, MPI_STATUS_IGNORE);
            }
            MPI_Bcast(&stopped, 1, MPI_INT, 0, others);
            last = vf_now();
        }
    }
    printf("{\"program\":\"compute_only\",\"rank\":%d,\"longest_us\":%.1f,\"gaps_up_to_us\":{",
           vf.rank, longest * 1e6);
    for (int bucket = 0; bucket < BUCKETS; bucket++) {
        printf("%s\"%ld\":%ld", bucket ? "," : "", 1L << bucket, histogram[bucket]);
    }
    printf("}}\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    vf_start("compute_only", &argc, &argv, MPI_THREAD_SINGLE);
    double seconds = vf_option("--seconds", 20);
    MPI_Comm others;
    MPI_Comm_split(MPI_COMM_WORLD, vf.rank > 0, vf.rank, &others);
    round_of_ring(0);
    if (vf.rank == 0) {
        compute(seconds);
        MPI_Send(NULL, 0, MPI_BYTE, 1, STOP, MPI_COMM_WORLD);
    } else {
        MPI_Request stop = MPI_REQUEST_NULL;
        if (vf.rank == 1) {
            MPI_Irecv(NULL, 0, MPI_BYTE, 0, STOP, MPI_COMM_WORLD, &stop);
        }
        play(others, &stop);
    }
    round_of_ring(1);
    MPI_Comm_free(&others);
    return vf_finish();
}
