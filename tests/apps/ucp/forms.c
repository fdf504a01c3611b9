/* Promise: what MPI libraries call rarely or never is right as well: nb, nbr and nbx forms of
 * tagged send, synchronous send and receive, requests in the caller's memory, matched messages in
 * both forms, IOV and generic datatypes, cancel, all flushes and fences, closing and making
 * endpoints again. Two processes without MPI; with --alone 1 a process that talks to itself.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "pair.h"

enum { LONGEST = 200 * 1024, SLACK = 512 };

struct mine { /* what the application keeps in a request */
    uint64_t magic;
    int done;
    ucs_status_t status;
    ucp_tag_recv_info_t info;
};
static const uint64_t MAGIC = 0x5e9fe571a11eb0a7u;
static const ucp_tag_t WHOLE = ~(ucp_tag_t)0;
static char *out, *in;

static void init(void *request)
{
    *(struct mine *)request = (struct mine){.magic = MAGIC};
}

static struct mine *mine_of(void *request)
{
    struct mine *mine = request;
    VF_REQUIRE(mine->magic == MAGIC, "a request was not initialized: %llx",
               (unsigned long long)mine->magic);
    return mine;
}

static void sent_nb(void *request, ucs_status_t status)
{
    mine_of(request)->status = status;
    mine_of(request)->done = 1;
}

static void sent_nbx(void *request, ucs_status_t status, void *user_data)
{
    *(int *)user_data += 1;
    sent_nb(request, status);
}

static void received_nb(void *request, ucs_status_t status, ucp_tag_recv_info_t *info)
{
    mine_of(request)->info = *info;
    sent_nb(request, status);
}

static void received_nbx(void *request, ucs_status_t status, const ucp_tag_recv_info_t *info,
                         void *user_data)
{
    ucp_tag_recv_info_t copy = *info;
    *(int *)user_data += 1;
    received_nb(request, status, &copy);
}

static size_t length_of(int source, int tag)
{
    static const size_t lengths[] = {0, 8, 700, 8200, 30000, LONGEST};
    /* To itself only what needs no receive to be sent. */
    return lengths[vf_hash((uint64_t)source, (uint64_t)tag, (uint64_t)vf.round) %
                   (up.alone ? 3 : 6)];
}

/* Waits for a request of the nb family. */
static struct mine wait_nb(void *request, const char *call)
{
    VF_REQUIRE(!UCS_PTR_IS_ERR(request), "%s: %s", call,
               ucs_status_string(UCS_PTR_STATUS(request)));
    struct mine *mine = mine_of(request), copy;
    while (!mine->done) {
        ucp_worker_progress(up.worker);
    }
    VF_REQUIRE(ucp_request_is_completed(request), "%s: called back but not complete", call);
    copy = *mine;
    /* A released request goes back to the pool; init is not called again for it. */
    mine->done = 0;
    ucp_request_free(request);
    return copy;
}

static void send_one(int tag)
{
    size_t length = length_of(up.me, tag);
    vf_fill(out, length, up.me, tag, (uint64_t)vf.round);
    char own[SLACK + 4096];
    VF_REQUIRE(up.request_size + 64 < sizeof own, "request size %zu", up.request_size);
    int called = 0;
    ucp_dt_iov_t iov[3] = {{out, length / 3}, {out + length / 3, length / 2},
                           {out + length / 3 + length / 2, length - length / 3 - length / 2}};
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK |
                                                 UCP_OP_ATTR_FIELD_USER_DATA,
                                 .cb.send = sent_nbx, .user_data = &called};
    void *request = NULL, *memory = own + ((up.request_size + 15) & ~(size_t)15);
    switch (tag) {
    case 0:
        request = ucp_tag_send_nb(up.ep, out, length, ucp_dt_make_contig(1), 0, sent_nb);
        break;
    case 1: {
        ucs_status_t status = ucp_tag_send_nbr(up.ep, out, length, ucp_dt_make_contig(1), 1, memory);
        while (status == UCS_INPROGRESS) {
            ucp_worker_progress(up.worker);
            status = ucp_request_check_status(memory);
        }
        up_expect(status, "ucp_tag_send_nbr");
        return;
    }
    case 2:
        request = ucp_tag_send_nbx(up.ep, out, length, 2, &param);
        break;
    case 3:
        request = ucp_tag_send_sync_nb(up.ep, out, length, ucp_dt_make_contig(1), 3, sent_nb);
        break;
    case 4:
        request = ucp_tag_send_sync_nbx(up.ep, out, length, 4, &param);
        break;
    case 5:
        param.op_attr_mask |= UCP_OP_ATTR_FIELD_DATATYPE | UCP_OP_ATTR_FLAG_NO_IMM_CMPL;
        param.datatype = ucp_dt_make_iov();
        request = ucp_tag_send_nbx(up.ep, iov, 3, 5, &param);
        break;
    default: /* contiguous of 1 element of the whole length */
        param.op_attr_mask |= UCP_OP_ATTR_FIELD_DATATYPE;
        param.datatype = ucp_dt_make_contig(length ? length : 1);
        request = ucp_tag_send_nbx(up.ep, out, length ? 1 : 0, (ucp_tag_t)tag, &param);
    }
    if (request != NULL) {
        struct mine done = wait_nb(request, "send");
        up_expect(done.status, "send");
    }
}

static ucp_tag_recv_info_t receive_one(int tag)
{
    ucp_tag_recv_info_t info = {0}, probed;
    ucp_tag_message_h message;
    char own[SLACK + 4096];
    void *memory = own + ((up.request_size + 15) & ~(size_t)15);
    int called = 0;
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK |
                                                 UCP_OP_ATTR_FIELD_USER_DATA |
                                                 UCP_OP_ATTR_FLAG_NO_IMM_CMPL,
                                 .cb.recv = received_nbx, .user_data = &called};
    switch ((tag + vf.round) % 5) {
    case 0:
        return wait_nb(ucp_tag_recv_nb(up.worker, in, LONGEST, ucp_dt_make_contig(1),
                                       (ucp_tag_t)tag, WHOLE, received_nb), "recv_nb").info;
    case 1: {
        up_expect(ucp_tag_recv_nbr(up.worker, in, LONGEST, ucp_dt_make_contig(1), (ucp_tag_t)tag,
                                   WHOLE, memory), "ucp_tag_recv_nbr");
        ucs_status_t status;
        while ((status = ucp_tag_recv_request_test(memory, &info)) == UCS_INPROGRESS) {
            ucp_worker_progress(up.worker);
        }
        up_expect(status, "ucp_tag_recv_nbr");
        return info;
    }
    case 2:
        info = wait_nb(ucp_tag_recv_nbx(up.worker, in, LONGEST, (ucp_tag_t)tag, WHOLE, &param),
                       "recv_nbx").info;
        VF_REQUIRE(called == 1, "the receive was called back %d times", called);
        return info;
    default:
        while ((message = ucp_tag_probe_nb(up.worker, (ucp_tag_t)tag, WHOLE, 0, &probed)) == NULL) {
            ucp_worker_progress(up.worker);
        }
        message = ucp_tag_probe_nb(up.worker, (ucp_tag_t)tag, WHOLE, 1, &info);
        VF_REQUIRE(message && info.length == probed.length, "the second probe found another one");
        if ((tag + vf.round) % 5 == 3) {
            return wait_nb(ucp_tag_msg_recv_nb(up.worker, in, LONGEST, ucp_dt_make_contig(1),
                                               message, received_nb), "msg_recv_nb").info;
        }
        return wait_nb(ucp_tag_msg_recv_nbx(up.worker, in, LONGEST, message, &param),
                       "msg_recv_nbx").info;
    }
}

static void flushed(void *request, ucs_status_t status)
{
    mine_of(request);
    up_expect(status, "flush");
}

static void flush_one(int which)
{
    ucp_request_param_t none = {0};
    switch (which) {
    case 0:
        up_expect(ucp_worker_fence(up.worker), "ucp_worker_fence");
        break;
    case 1:
        up_finish(ucp_ep_flush_nbx(up.ep, &none), "ucp_ep_flush_nbx");
        break;
    case 2:
        up_finish(ucp_worker_flush_nbx(up.worker, &none), "ucp_worker_flush_nbx");
        break;
    case 3:
        up_expect(ucp_ep_flush(up.ep), "ucp_ep_flush");
        break;
    case 4:
        up_expect(ucp_worker_flush(up.worker), "ucp_worker_flush");
        break;
    case 5:
        up_finish(ucp_ep_flush_nb(up.ep, 0, flushed), "ucp_ep_flush_nb");
        break;
    default:
        up_finish(ucp_worker_flush_nb(up.worker, 0, flushed), "ucp_worker_flush_nb");
    }
}

static void cancel_one(void)
{
    ucp_request_param_t none = {0};
    ucs_status_ptr_t request = ucp_tag_recv_nbx(up.worker, in, LONGEST, 999, WHOLE, &none);
    VF_REQUIRE(UCS_PTR_IS_PTR(request), "a receive without a message did not stay in progress");
    ucp_request_cancel(up.worker, request);
    ucs_status_t status = up_finish(request, "cancelled receive");
    VF_REQUIRE(status == UCS_ERR_CANCELED, "cancelled receive: %s", ucs_status_string(status));
}

/* Three ways to close; the endpoint is made again at once. */
static void reconnect(long which)
{
    up_meet();
    switch (which % 3) {
    case 0:
        up_close();
        break;
    case 1:
        up_finish(ucp_ep_close_nb(up.ep, UCP_EP_CLOSE_MODE_FLUSH), "ucp_ep_close_nb");
        break;
    default:
        up_finish(ucp_disconnect_nb(up.ep), "ucp_disconnect_nb");
    }
    up_meet();
    up_connect();
}

int main(int argc, char **argv)
{
    vf.argc = argc;
    vf.argv = argv;
    up_start("forms", vf_option("--alone", 0) > 0, sizeof(struct mine), init, argc, argv);
    out = vf_alloc(LONGEST);
    in = vf_alloc(LONGEST);
    while (up_more()) {
        for (int tag = 0; tag < 7; tag++) {
            /* A synchronous send to oneself would wait for a receive that comes after it. */
            int sync = tag == 3 || tag == 4;
            if (up.alone && sync) {
                continue;
            }
            for (int turn = 0; turn < 2; turn++) {
                if (up.alone ? turn == 0 : turn == up.me) {
                    send_one(tag);
                    continue;
                }
                ucp_tag_recv_info_t info = receive_one(tag);
                size_t length = length_of(up.peer, tag);
                VF_REQUIRE(info.sender_tag == (ucp_tag_t)tag && info.length == length,
                           "received tag %llu length %zu, expected %d and %zu",
                           (unsigned long long)info.sender_tag, info.length, tag, length);
                vf_check(in, length, up.peer, tag, (uint64_t)vf.round);
            }
            flush_one((int)(tag + vf.round) % 7);
        }
        cancel_one();
        if (vf.round % 16 == 0) {
            reconnect(vf.round / 16);
        }
    }
    return up_end();
}
