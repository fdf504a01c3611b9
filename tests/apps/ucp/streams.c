/* Promise: what the library does not move runs on as it would without: bytes over UCP streams
 * arrive in order, in both directions.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#define UP_FEATURES (UCP_FEATURE_TAG | UCP_FEATURE_STREAM)
#include "pair.h"

enum { BYTES = 10000 };

int main(int argc, char **argv)
{
    ucp_request_param_t none = {0};
    up_start("streams", 0, 0, NULL, argc, argv);
    char *out = vf_alloc(BYTES), *in = vf_alloc(BYTES);
    while (up_more()) {
        vf_fill(out, BYTES, up.me, 1, (uint64_t)vf.round);
        ucs_status_ptr_t sent = ucp_stream_send_nbx(up.ep, out, BYTES, &none);
        for (size_t have = 0, length; have < BYTES; have += length) {
            ucs_status_ptr_t received =
                ucp_stream_recv_nbx(up.ep, in + have, BYTES - have, &length, &none);
            if (UCS_PTR_IS_PTR(received)) {
                ucs_status_t status;
                while ((status = ucp_stream_recv_request_test(received, &length)) ==
                       UCS_INPROGRESS) {
                    ucp_worker_progress(up.worker);
                }
                up_expect(status, "ucp_stream_recv_nbx");
                ucp_request_free(received);
            }
        }
        up_expect(up_finish(sent, "ucp_stream_send_nbx"), "ucp_stream_send_nbx");
        vf_check(in, BYTES, up.peer, 1, (uint64_t)vf.round);
    }
    return up_end();
}
