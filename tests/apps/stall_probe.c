/* Promise: tells how long the job could not communicate, and when, measured inside the job. A
 * steady 8-byte ping-pong between rank 0 and rank 1 (the other ranks compute); the longest gaps
 * between two exchanges are printed by rank 0 as JSON lines with their start on CLOCK_REALTIME,
 * so that a test can lay them beside the events of a switch or a migration.
 * Options: --gaps N (how many of the longest, default 20), --report S (also print every gap
 * longer than S seconds at once, for a live view; off by default).
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { PING = 1, MOST = 1000 };

struct gap {
    double start, duration;
};

static double wall_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void print_gap(const char *kind, struct gap gap)
{
    printf("{\"program\":\"stall_probe\",\"%s\":true,\"start\":%.6f,\"duration_us\":%.1f}\n", kind,
           gap.start, gap.duration * 1e6);
    fflush(stdout);
}

/* Keeps the `kept` longest gaps, longest first. */
static void keep(struct gap *gaps, int *count, int kept, struct gap gap)
{
    if (*count == kept && gap.duration <= gaps[kept - 1].duration) {
        return;
    }
    int at = *count < kept ? (*count)++ : kept - 1;
    for (; at > 0 && gaps[at - 1].duration < gap.duration; at--) {
        gaps[at] = gaps[at - 1];
    }
    gaps[at] = gap;
}

static void ping(int kept, double report)
{
    struct gap gaps[MOST];
    int count = 0;
    uint64_t sequence = 0, out[2], in[2], more = 1;
    double began = wall_clock(), last = vf_now(), total = 0;
    for (; more; sequence++) {
        more = vf.rounds ? sequence + 1 < (uint64_t)vf.rounds : vf_time_left();
        out[0] = sequence;
        out[1] = more;
        MPI_Send(out, sizeof out, MPI_BYTE, 1, PING, MPI_COMM_WORLD);
        MPI_Recv(in, sizeof in, MPI_BYTE, 1, PING, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        VF_REQUIRE(in[0] == vf_mix(sequence), "pong %llu is wrong", (unsigned long long)sequence);
        vf_count(sizeof in);
        double now = vf_now();
        struct gap gap = {wall_clock() - (now - last), now - last};
        total += gap.duration;
        keep(gaps, &count, kept, gap);
        if (report > 0 && gap.duration > report) {
            print_gap("live", gap);
        }
        last = now;
    }
    for (int i = 0; i < count; i++) {
        print_gap("gap", gaps[i]);
    }
    printf("{\"program\":\"stall_probe\",\"began\":%.6f,\"exchanges\":%llu,\"mean_us\":%.3f}\n",
           began, (unsigned long long)sequence, total / (double)sequence * 1e6);
    fflush(stdout);
}

static void pong(void)
{
    for (uint64_t message[2] = {0, 1}, answer[2]; message[1];) {
        MPI_Recv(message, sizeof message, MPI_BYTE, 0, PING, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        answer[0] = vf_mix(message[0]);
        answer[1] = 0;
        MPI_Send(answer, sizeof answer, MPI_BYTE, 0, PING, MPI_COMM_WORLD);
    }
}

int main(int argc, char **argv)
{
    vf_start("stall_probe", &argc, &argv, MPI_THREAD_SINGLE);
    int kept = (int)vf_option("--gaps", 20);
    VF_REQUIRE(kept >= 1 && kept <= MOST, "--gaps must be 1 to %d", MOST);
    if (vf.rank == 0) {
        ping(kept, vf_option("--report", 0));
    } else if (vf.rank == 1) {
        pong();
    } else {
        volatile double x = 0.5;
        while (vf_now() - vf.start < vf.seconds) {
            x = 3.7 * x * (1 - x);
        }
    }
    return vf_finish();
}
