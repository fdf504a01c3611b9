/* Promise: threads that share a worker send and receive active messages at once, and their handlers
 * run one at a time and in the order of sending, also those of messages that a switch met. Two
 * processes without MPI; each of three threads sends, and waits for the answer of a handler.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#define UP_FEATURES UCP_FEATURE_AM
#define UP_THREAD_MODE UCS_THREAD_MODE_MULTI
#include <pthread.h>
#include <sched.h>
#include "pair.h"

enum { THREADS = 3, QUESTION = 1, ANSWER = 2, LONGEST = 20000, AHEAD = 4 };

struct name {
    uint64_t number;
    uint32_t thread, length;
};

static struct {
    uint64_t asked, answered; /* by each thread of this process */
    uint64_t heard;           /* from the thread of the other */
    char line[64]; /* of the cache */
} threads[THREADS];
static int stop, inside;

static void released(void *request, ucs_status_t status, void *memory)
{
    up_expect(status, "ucp_am_send_nbx");
    free(memory);
    if (request != NULL) {
        ucp_request_free(request);
    }
}

/* Header and data go with the memory, freed when they are sent. */
static void send_to_peer(unsigned id, struct name name)
{
    char *memory = vf_alloc(sizeof name + name.length);
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK |
                                                 UCP_OP_ATTR_FIELD_USER_DATA,
                                 .cb.send = released, .user_data = memory};
    memcpy(memory, &name, sizeof name);
    vf_fill(memory + sizeof name, name.length, up.me, (int)name.thread, name.number);
    param.op_attr_mask |= UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_AM_SEND_FLAG_EAGER;
    void *request = ucp_am_send_nbx(up.ep, id, memory, sizeof name, memory + sizeof name,
                                    name.length, &param);
    VF_REQUIRE(!UCS_PTR_IS_ERR(request), "ucp_am_send_nbx: %s",
               ucs_status_string(UCS_PTR_STATUS(request)));
    if (request == NULL) {
        free(memory);
    }
}

static struct name enter(const void *header, size_t header_length, size_t length)
{
    struct name name;
    VF_REQUIRE(__atomic_exchange_n(&inside, 1, __ATOMIC_ACQ_REL) == 0, "two handlers at once");
    VF_REQUIRE(header_length == sizeof name, "a header of %zu bytes", header_length);
    memcpy(&name, header, sizeof name);
    VF_REQUIRE(name.thread < THREADS && name.length == length, "thread %u length %zu", name.thread,
               length);
    return name;
}

static ucs_status_t on_question(void *arg, const void *header, size_t header_length, void *data,
                                size_t length, const ucp_am_recv_param_t *param)
{
    (void)arg;
    (void)param;
    struct name name = enter(header, header_length, length);
    uint64_t before = threads[name.thread].heard++;
    VF_REQUIRE(name.number == before, "thread %u: message %llu came after %llu", name.thread,
               (unsigned long long)name.number, (unsigned long long)before);
    vf_check(data, length, up.peer, (int)name.thread, name.number);
    name.length = 0;
    send_to_peer(ANSWER, name);
    __atomic_store_n(&inside, 0, __ATOMIC_RELEASE);
    return UCS_OK;
}

static ucs_status_t on_answer(void *arg, const void *header, size_t header_length, void *data,
                              size_t length, const ucp_am_recv_param_t *param)
{
    (void)arg;
    (void)data;
    (void)param;
    struct name name = enter(header, header_length, length);
    uint64_t before = __atomic_fetch_add(&threads[name.thread].answered, 1, __ATOMIC_ACQ_REL);
    VF_REQUIRE(name.number == before, "thread %u: answer %llu came after %llu", name.thread,
               (unsigned long long)name.number, (unsigned long long)before);
    __atomic_store_n(&inside, 0, __ATOMIC_RELEASE);
    return UCS_OK;
}

static void *ask(void *argument)
{
    uint32_t thread = (uint32_t)(uintptr_t)argument;
    uint64_t *asked = &threads[thread].asked, *answered = &threads[thread].answered;
    for (;;) {
        int last = __atomic_load_n(&stop, __ATOMIC_ACQUIRE);
        uint64_t open = *asked - __atomic_load_n(answered, __ATOMIC_ACQUIRE);
        if (last && open == 0) {
            return NULL;
        }
        if (last || open >= AHEAD) {
            ucp_worker_progress(up.worker);
            sched_yield();
            continue;
        }
        uint64_t hash = vf_hash(thread, *asked, 1);
        uint32_t length = (uint32_t)(hash % 8 == 0 ? hash / 8 % LONGEST : hash / 8 % 200);
        send_to_peer(QUESTION, (struct name){(*asked)++, thread, length});
    }
}

static void set_handler(unsigned id, ucp_am_recv_callback_t callback)
{
    ucp_am_handler_param_t param = {.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID |
                                                  UCP_AM_HANDLER_PARAM_FIELD_CB,
                                    .id = id, .cb = callback};
    up_expect(ucp_worker_set_am_recv_handler(up.worker, &param), "ucp_worker_set_am_recv_handler");
}

int main(int argc, char **argv)
{
    pthread_t running[THREADS];
    up_start("crowd", 0, 0, NULL, argc, argv);
    set_handler(QUESTION, on_question);
    set_handler(ANSWER, on_answer);
    up_meet();
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&running[i], NULL, ask, (void *)(uintptr_t)i);
    }
    while (up_more()) {
        double until = vf_now() + 0.01;
        while (vf_now() < until) {
            ucp_worker_progress(up.worker);
            sched_yield();
        }
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(running[i], NULL);
    }
    return up_end();
}
