/* Promise: a process that exits with all its UCX objects alive, at any moment of a switch, ends
 * with the status it chose. It talks to itself for --after S seconds (default 0.5), then calls
 * exit(7) from the middle of it. This program never says OK.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "pair.h"

int main(int argc, char **argv)
{
    enum { BYTES = 20000 };
    ucp_request_param_t none = {0};
    up_start("exits", 1, 0, NULL, argc, argv);
    double after = vf_option("--after", 0.5);
    char *out = vf_alloc(BYTES), *in = vf_alloc(BYTES);
    for (;; vf.round++) {
        vf_fill(out, BYTES, 0, 1, (uint64_t)vf.round);
        ucs_status_ptr_t received = ucp_tag_recv_nbx(up.worker, in, BYTES, 1, ~(ucp_tag_t)0, &none);
        ucs_status_ptr_t sent = ucp_tag_send_nbx(up.ep, out, BYTES, 1, &none);
        if (vf_now() - vf.start > after) {
            exit(7);
        }
        up_expect(up_finish(sent, "send"), "send");
        up_expect(up_finish(received, "receive"), "receive");
        vf_check(in, BYTES, 0, 1, (uint64_t)vf.round);
    }
}
