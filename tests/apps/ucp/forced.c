/* Promise: endpoints may be closed by force, one side first and the other some time later, with new
 * endpoints to the same peer made in between: what is sent over the new ones arrives, and no
 * error of the old ones is told of them. Two processes without MPI.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#define UP_CONNECTS 0
#include "pair.h"

enum { LENGTH = 20000, LONGEST_WAIT = 60 /* ms */ };

static struct link {
    ucp_ep_h ep;
    long round;
    int closing;
} links[2];

static void on_error(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    struct link *link = arg;
    (void)ep;
    /* The peer may have closed its side of an old link before we close ours. */
    VF_REQUIRE(link->closing, "the endpoint of round %ld failed in round %ld: %s", link->round,
               vf.round, ucs_status_string(status));
}

static void make(struct link *link)
{
    ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS |
                                            UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                                            UCP_EP_PARAM_FIELD_ERR_HANDLER,
                              .address = up.peer_address,
                              .err_mode = UCP_ERR_HANDLING_MODE_PEER,
                              .err_handler = {on_error, link}};
    *link = (struct link){.round = vf.round};
    up_expect(ucp_ep_create(up.worker, &params, &link->ep), "ucp_ep_create");
}

static void close_by_force(struct link *link)
{
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                 .flags = UCP_EP_CLOSE_FLAG_FORCE};
    up_finish(ucp_ep_close_nbx(link->ep, &param), "ucp_ep_close_nbx by force");
}

static void exchange(struct link *link, int part)
{
    static char out[LENGTH], in[LENGTH];
    ucp_request_param_t none = {0};
    vf_fill(out, LENGTH, up.me, part, (uint64_t)vf.round);
    void *receive = ucp_tag_recv_nbx(up.worker, in, LENGTH, (ucp_tag_t)(vf.round * 2 + part),
                                     UINT64_MAX, &none);
    up_finish(ucp_tag_send_nbx(link->ep, out, LENGTH, (ucp_tag_t)(vf.round * 2 + part), &none),
              "send");
    up_finish(receive, "receive");
    vf_check(in, LENGTH, up.peer, part, (uint64_t)vf.round);
}

static void linger(int ms)
{
    for (double end = vf_now() + ms * 1e-3; vf_now() < end;) {
        ucp_worker_progress(up.worker);
    }
}

int main(int argc, char **argv)
{
    up_start("forced", 0, 0, NULL, argc, argv);
    make(&links[0]);
    exchange(&links[0], 1);
    while (up_more()) {
        struct link *old = &links[(vf.round - 1) % 2], *new = &links[vf.round % 2];
        int wait = (int)(vf_hash((uint64_t)vf.round, 1, 2) % LONGEST_WAIT);
        old->closing = 1;
        up_meet();
        if (up.me == vf.round / 2 % 2) {
            close_by_force(old);
            make(new);
            linger(wait);
        } else {
            linger(wait);
            close_by_force(old);
            make(new);
        }
        exchange(new, 0);
        linger(wait / 2);
        exchange(new, 1);
    }
    up_meet();
    links[vf.round % 2].closing = 1;
    close_by_force(&links[vf.round % 2]);
    return up_end();
}
