/* Promise: a synchronous send completes only after its receive was posted, also when a switch
 * drained the message in between. Shown without clocks: the receiver posts only after a "go"
 * that the sender sends last, so every MPI_Test before "go" must say no; and MPI_Ssend may not
 * have returned (its "returned" message may not be there) before the receive is posted.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

enum { SYNC = 1, PING = 2, PONG = 3, GO = 4, RETURNED = 5, LONGEST = 256 * 1024 };

static size_t length_of(int sender, long round, int kind)
{
    static const size_t lengths[] = {0, 1, 8, 1000, 8192, 20000, 70000, LONGEST};
    return lengths[vf_hash((uint64_t)sender, (uint64_t)round, (uint64_t)kind) % 8];
}

static void issend(int peer, char *buffer)
{
    size_t length = length_of(vf.rank, vf.round, 0);
    double patience = (double)(vf_hash((uint64_t)vf.rank, (uint64_t)vf.round, 2) % 90) * 1e-3;
    MPI_Request request;
    int done, exchanges = 0;
    vf_fill(buffer, length, vf.rank, SYNC, (uint64_t)vf.round);
    MPI_Issend(buffer, (int)length, MPI_BYTE, peer, SYNC, MPI_COMM_WORLD, &request);
    for (double end = vf_now() + patience; vf_now() < end; exchanges++) {
        MPI_Test(&request, &done, MPI_STATUS_IGNORE);
        VF_REQUIRE(!done, "Issend of %zu bytes completed after %d exchanges, before its receive "
                          "was posted", length, exchanges);
        MPI_Send(NULL, 0, MPI_BYTE, peer, PING, MPI_COMM_WORLD);
        MPI_Recv(NULL, 0, MPI_BYTE, peer, PONG, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
    MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    VF_REQUIRE(!done, "Issend of %zu bytes completed before its receive was posted", length);
    MPI_Send(NULL, 0, MPI_BYTE, peer, GO, MPI_COMM_WORLD);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
}

static void receive_late(int peer, char *buffer)
{
    size_t length = length_of(peer, vf.round, 0);
    MPI_Status status;
    for (;;) {
        /* A probe sees the synchronous message but does not match it. */
        MPI_Probe(peer, SYNC, MPI_COMM_WORLD, &status);
        vf_check_status(&status, peer, SYNC, length);
        int go;
        MPI_Iprobe(peer, GO, MPI_COMM_WORLD, &go, MPI_STATUS_IGNORE);
        if (go) {
            break;
        }
        int ping;
        MPI_Iprobe(peer, PING, MPI_COMM_WORLD, &ping, MPI_STATUS_IGNORE);
        if (ping) {
            MPI_Recv(NULL, 0, MPI_BYTE, peer, PING, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            MPI_Send(NULL, 0, MPI_BYTE, peer, PONG, MPI_COMM_WORLD);
        }
    }
    MPI_Recv(NULL, 0, MPI_BYTE, peer, GO, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    if (vf.round % 2) {
        MPI_Recv(buffer, LONGEST, MPI_BYTE, peer, SYNC, MPI_COMM_WORLD, &status);
    } else {
        MPI_Message message;
        MPI_Mprobe(peer, SYNC, MPI_COMM_WORLD, &message, MPI_STATUS_IGNORE);
        MPI_Mrecv(buffer, LONGEST, MPI_BYTE, &message, &status);
    }
    vf_check_status(&status, peer, SYNC, length);
    vf_check(buffer, length, peer, SYNC, (uint64_t)vf.round);
}

static void ssend(int peer, char *buffer)
{
    size_t length = length_of(vf.rank, vf.round, 1);
    vf_fill(buffer, length, vf.rank, SYNC, (uint64_t)vf.round);
    MPI_Ssend(buffer, (int)length, MPI_BYTE, peer, SYNC, MPI_COMM_WORLD);
    MPI_Send(NULL, 0, MPI_BYTE, peer, RETURNED, MPI_COMM_WORLD);
}

static void expect_blocked(int peer, char *buffer)
{
    size_t length = length_of(peer, vf.round, 1);
    double patience = (double)(vf_hash((uint64_t)vf.rank, (uint64_t)vf.round, 3) % 90) * 1e-3;
    int returned;
    for (double end = vf_now() + patience; vf_now() < end;) {
        MPI_Iprobe(peer, RETURNED, MPI_COMM_WORLD, &returned, MPI_STATUS_IGNORE);
        VF_REQUIRE(!returned, "Ssend of %zu bytes returned before its receive was posted", length);
    }
    MPI_Status status;
    MPI_Recv(buffer, LONGEST, MPI_BYTE, peer, SYNC, MPI_COMM_WORLD, &status);
    vf_check_status(&status, peer, SYNC, length);
    vf_check(buffer, length, peer, SYNC, (uint64_t)vf.round);
    MPI_Recv(NULL, 0, MPI_BYTE, peer, RETURNED, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

int main(int argc, char **argv)
{
    vf_start("sync_send", &argc, &argv, MPI_THREAD_SINGLE);
    VF_REQUIRE(vf.ranks % 2 == 0, "needs an even number of ranks");
    char *buffer = vf_alloc(LONGEST);
    int peer = vf.rank ^ 1;
    while (vf_more()) {
        if ((vf.rank + vf.round) % 2) {
            issend(peer, buffer);
            ssend(peer, buffer);
        } else {
            receive_late(peer, buffer);
            expect_blocked(peer, buffer);
        }
    }
    return vf_finish();
}
