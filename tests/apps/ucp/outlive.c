/* Promise: a process may end, in good order, while the one it talked to goes on with the same
 * worker: that one neither fails nor is told of an error. It talks to itself meanwhile.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "pair.h"

#define LENGTH 20000
#define WHOLE (~(ucp_tag_t)0)

static unsigned char *out, *in;

static void lost(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    (void)arg;
    (void)ep;
    vf_fail("the application was told of an error: %s", ucs_status_string(status));
}

static void pass(ucp_ep_h to, int from, int sends, int receives)
{
    ucp_request_param_t none = {0};
    ucs_status_ptr_t sent = NULL, received = NULL;
    if (receives) {
        received = ucp_tag_recv_nbx(up.worker, in, LENGTH, 1, WHOLE, &none);
    }
    if (sends) {
        vf_fill(out, LENGTH, up.me, 1, (uint64_t)vf.round);
        sent = ucp_tag_send_nbx(to, out, LENGTH, 1, &none);
    }
    if (sends) {
        up_expect(up_finish(sent, "send"), "send");
    }
    if (receives) {
        up_expect(up_finish(received, "receive"), "receive");
        vf_check(in, LENGTH, from, 1, (uint64_t)vf.round);
    }
}

int main(int argc, char **argv)
{
    up_start("outlive", 0, 0, NULL, argc, argv);
    out = vf_alloc(LENGTH);
    in = vf_alloc(LENGTH);
    while (vf.round < 100) {
        vf.round++;
        pass(up.ep, up.peer, up.me == 0, up.me == 1);
        pass(up.ep, up.peer, up.me == 1, up.me == 0);
    }
    up_meet();
    up_close();
    up_meet();
    if (up.me == 1) {
        ucp_worker_destroy(up.worker);
        ucp_cleanup(up.context);
        return 0;
    }
    while (!up_child_ended) {
        ucp_worker_progress(up.worker);
    }
    ucp_address_t *mine;
    size_t length;
    up_expect(ucp_worker_get_address(up.worker, &mine, &length), "ucp_worker_get_address");
    ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS |
                                            UCP_EP_PARAM_FIELD_ERR_HANDLER,
                              .err_handler.cb = lost, .address = mine};
    up_expect(ucp_ep_create(up.worker, &params, &up.ep), "ucp_ep_create");
    ucp_worker_release_address(up.worker, mine);
    vf.seconds = vf_option("--seconds", 2);
    for (vf.start = vf_now(); vf_now() - vf.start < vf.seconds; vf.round++) {
        pass(up.ep, up.me, 1, 1);
    }
    up_close();
    ucp_worker_destroy(up.worker);
    ucp_cleanup(up.context);
    printf("OK outlive ranks=2 rounds=%ld messages=%llu bytes=%llu\n", vf.round,
           (unsigned long long)vf.messages, (unsigned long long)vf.bytes);
    return 0;
}
