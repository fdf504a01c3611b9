/* Promise: a process whose peer has left without a close goes on and is switched as before, although
 * the endpoint to that peer stays open; used, the endpoint may fail, but does no harm, and it can be
 * closed. The one that stays talks to itself meanwhile.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "pair.h"

enum { LENGTH = 20000, TAG = 3 };

static void exchange(ucp_ep_h ep, int source, uint64_t number)
{
    static char out[LENGTH], in[LENGTH];
    ucp_request_param_t none = {0};
    vf_fill(out, LENGTH, up.me, TAG, number);
    void *receive = ucp_tag_recv_nbx(up.worker, in, LENGTH, TAG, UINT64_MAX, &none);
    up_expect(up_finish(ucp_tag_send_nbx(ep, out, LENGTH, TAG, &none), "send"), "send");
    up_expect(up_finish(receive, "receive"), "receive");
    vf_check(in, LENGTH, source, TAG, number);
}

static ucp_ep_h connect_to_myself(void)
{
    ucp_address_t *mine;
    size_t length;
    ucp_ep_h ep;
    up_expect(ucp_worker_get_address(up.worker, &mine, &length), "ucp_worker_get_address");
    ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS, .address = mine};
    up_expect(ucp_ep_create(up.worker, &params, &ep), "ucp_ep_create");
    ucp_worker_release_address(up.worker, mine);
    return ep;
}

int main(int argc, char **argv)
{
    ucp_request_param_t none = {0};
    up_start("left", 0, 0, NULL, argc, argv);
    for (uint64_t number = 0; number < 20; number++) {
        exchange(up.ep, up.peer, number);
    }
    up_meet();
    if (up.me == 1) {
        /* Its endpoints go with the worker. */
        ucp_worker_destroy(up.worker);
        ucp_cleanup(up.context);
        return 0;
    }
    while (!up_child_ended) {
        ucp_worker_progress(up.worker);
    }
    ucp_ep_h to_myself = connect_to_myself();
    for (double end = vf_now() + 3; vf_now() < end; vf.round++) {
        exchange(to_myself, up.me, (uint64_t)vf.round);
    }
    char byte = 1;
    void *request = ucp_tag_send_nbx(up.ep, &byte, 1, TAG, &none);
    VF_REQUIRE(UCS_PTR_IS_ERR(request), "a message to a process that is gone was sent");
    ucp_request_param_t close = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = 0};
    up_finish(ucp_ep_close_nbx(up.ep, &close), "ucp_ep_close_nbx");
    up_finish(ucp_ep_close_nbx(to_myself, &close), "ucp_ep_close_nbx");
    ucp_worker_destroy(up.worker);
    ucp_cleanup(up.context);
    free(up.peer_address);
    printf("OK left rounds=%ld messages=%llu\n", vf.round, (unsigned long long)vf.messages);
    return 0;
}
