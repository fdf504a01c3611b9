/* Two processes that talk UCP to each other without MPI, or one that talks to itself.
 *
 * The process forks before it touches UCX; a socket pair carries addresses and keeps the two in
 * step. Every UCP failure ends the program with the name of the call.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SYMVIRT_UCP_PAIR_H
#define SYMVIRT_UCP_PAIR_H

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

static pid_t up_child;
static volatile sig_atomic_t up_child_ended;

/* The other process must not wait for one that gave up: the first ends when the second does so
 * with a failure, the second when the first is gone. */
static inline void up_abort(void)
{
    _exit(3);
}

static inline void up_on_child(int signal)
{
    int status;
    (void)signal;
    if (waitpid(up_child, &status, WNOHANG) == up_child) {
        if (status != 0) {
            _exit(3);
        }
        up_child_ended = 1;
    }
}
#define VF_ABORT() up_abort()
#include "../pattern.h"

/* What the program asks of ucp_init. */
#ifndef UP_FEATURES
#define UP_FEATURES UCP_FEATURE_TAG
#endif

/* Where data of active messages begins that its handler may keep. */
#ifndef UP_AM_ALIGNMENT
#define UP_AM_ALIGNMENT 1
#endif

/* How many threads use the worker at once. */
#ifndef UP_THREAD_MODE
#define UP_THREAD_MODE UCS_THREAD_MODE_SINGLE
#endif

/* Whether this process makes an endpoint; the other one always does. */
#ifndef UP_CONNECTS
#define UP_CONNECTS 1
#endif

static struct {
    int alone, me, peer, socket;
    size_t request_size;
    ucp_context_h context;
    ucp_worker_h worker;
    ucp_ep_h ep;
    ucp_address_t *peer_address;
} up;

static inline void up_expect(ucs_status_t status, const char *call)
{
    VF_REQUIRE(status == UCS_OK, "%s: %s", call, ucs_status_string(status));
}

static inline void up_write(const void *bytes, size_t length)
{
    VF_REQUIRE(write(up.socket, bytes, length) == (ssize_t)length, "the other process is gone");
}

static inline void up_read(void *bytes, size_t length)
{
    for (size_t at = 0; at < length;) {
        ssize_t got = read(up.socket, (char *)bytes + at, length - at);
        VF_REQUIRE(got > 0, "the other process is gone");
        at += (size_t)got;
    }
}

static inline void up_connect(void)
{
    ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS,
                              .address = up.peer_address};
    up_expect(ucp_ep_create(up.worker, &params, &up.ep), "ucp_ep_create");
}

/* Waits for a request while it progresses the worker, frees it. */
static inline ucs_status_t up_finish(ucs_status_ptr_t request, const char *call)
{
    if (request == NULL) {
        return UCS_OK;
    }
    VF_REQUIRE(!UCS_PTR_IS_ERR(request), "%s: %s", call,
               ucs_status_string(UCS_PTR_STATUS(request)));
    ucs_status_t status;
    while ((status = ucp_request_check_status(request)) == UCS_INPROGRESS) {
        ucp_worker_progress(up.worker);
    }
    ucp_request_free(request);
    return status;
}

/* Closes the endpoint; the peer has to progress until its own close is done. */
static inline void up_close(void)
{
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = 0};
    up_finish(ucp_ep_close_nbx(up.ep, &param), "ucp_ep_close_nbx");
    up.ep = NULL;
}

static inline void up_exchange_addresses(void)
{
    ucp_address_t *mine;
    size_t length, other;
    up_expect(ucp_worker_get_address(up.worker, &mine, &length), "ucp_worker_get_address");
    if (up.alone) {
        up.peer_address = vf_alloc(length);
        memcpy(up.peer_address, mine, length);
    } else {
        up_write(&length, sizeof length);
        up_write(mine, length);
        up_read(&other, sizeof other);
        up.peer_address = vf_alloc(other);
        up_read(up.peer_address, other);
    }
    ucp_worker_release_address(up.worker, mine);
}

/* `alone`: one process, its endpoint leads to itself. `init` may be null. */
static inline void up_start(const char *name, int alone, size_t request_size,
                            ucp_request_init_callback_t init, int argc, char **argv)
{
    vf.name = name;
    vf.argc = argc;
    vf.argv = argv;
    vf.ranks = alone ? 1 : 2;
    up.alone = alone;
    if (!alone) {
        int sockets[2];
        VF_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0, "socketpair failed");
        struct sigaction on_child = {.sa_handler = up_on_child, .sa_flags = SA_RESTART};
        sigset_t child_ends, before;
        sigaction(SIGCHLD, &on_child, NULL);
        /* Not before its process id is known. */
        sigemptyset(&child_ends);
        sigaddset(&child_ends, SIGCHLD);
        sigprocmask(SIG_BLOCK, &child_ends, &before);
        up_child = fork();
        VF_REQUIRE(up_child >= 0, "fork failed");
        sigprocmask(SIG_SETMASK, &before, NULL);
        up.me = up_child == 0;
        if (up.me == 1) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
        }
        up.socket = sockets[up.me];
        close(sockets[!up.me]);
    }
    up.peer = alone ? 0 : !up.me;
    vf.rank = up.me;
    ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_REQUEST_SIZE |
                                         UCP_PARAM_FIELD_REQUEST_INIT,
                           .features = UP_FEATURES,
                           .request_size = request_size,
                           .request_init = init};
    ucp_config_t *config;
    up_expect(ucp_config_read(NULL, NULL, &config), "ucp_config_read");
    up_expect(ucp_init(&params, config, &up.context), "ucp_init");
    ucp_config_release(config);
    ucp_context_attr_t attributes = {.field_mask = UCP_ATTR_FIELD_REQUEST_SIZE};
    up_expect(ucp_context_query(up.context, &attributes), "ucp_context_query");
    up.request_size = attributes.request_size;
    ucp_worker_params_t worker = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE |
                                                UCP_WORKER_PARAM_FIELD_AM_ALIGNMENT,
                                  .thread_mode = UP_THREAD_MODE,
                                  .am_alignment = UP_AM_ALIGNMENT};
    up_expect(ucp_worker_create(up.context, &worker, &up.worker), "ucp_worker_create");
    up_exchange_addresses();
    if (UP_CONNECTS) {
        up_connect();
    }
    vf.rounds = (long)vf_option("--rounds", 0);
    vf.seconds = vf_option("--seconds", 2);
    vf.start = vf_now();
}

/* Both have come here; the worker is progressed meanwhile, for the peer's sake. */
static inline void up_meet(void)
{
    char byte = 0;
    if (up.alone) {
        return;
    }
    up_write(&byte, 1);
    while (recv(up.socket, &byte, 1, MSG_DONTWAIT) != 1) {
        ucp_worker_progress(up.worker);
    }
}

/* Whether there is another round: process 0 decides. */
static inline int up_more(void)
{
    char more = vf.rounds ? vf.round < vf.rounds : vf_now() - vf.start < vf.seconds;
    if (!up.alone && up.me == 0) {
        up_write(&more, 1);
    } else if (!up.alone) {
        while (recv(up.socket, &more, 1, MSG_DONTWAIT) != 1) {
            ucp_worker_progress(up.worker);
        }
    }
    vf.round += more;
    return more;
}

/* Ends both; the first process tells the outcome. */
static inline int up_end(void)
{
    up_meet();
    if (up.ep != NULL) {
        up_close();
    }
    up_meet();
    ucp_worker_destroy(up.worker);
    ucp_cleanup(up.context);
    free(up.peer_address);
    if (up.me == 1) {
        up_write(&vf.messages, sizeof vf.messages);
        up_write(&vf.bytes, sizeof vf.bytes);
        return 0;
    }
    uint64_t messages = 0, bytes = 0;
    if (!up.alone) {
        up_read(&messages, sizeof messages);
        up_read(&bytes, sizeof bytes);
        /* Nothing may be said before the other has ended well. */
        while (!up_child_ended) {
            poll(NULL, 0, 10);
        }
    }
    printf("OK %s ranks=%d rounds=%ld messages=%llu bytes=%llu\n", vf.name, vf.ranks, vf.round,
           (unsigned long long)(vf.messages + messages), (unsigned long long)(vf.bytes + bytes));
    return 0;
}

#endif
