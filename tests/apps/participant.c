/* An example of what symvirt.h offers, and a test of it. The program has a store of its own beside
 * MPI, which keeps a verbs device open where there is one, and a connection over TCP in any case.
 * It takes part in every switch: the resources are released, and acquired again.
 *
 * Promise: callbacks come in their order, one at a time, in every switch; the store is used only
 * while it has its resources; a region that holds the process sees one epoch; the state tells the
 * transports in use; messages arrive byte by byte. Without the library it does the same, unswitched.
 *
 * Options: --refuse 1   the store refuses switches while it writes a "checkpoint"
 *          --endless 1  rank 0 stays in one region until the end
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "verify.h"

#include <arpa/inet.h>
#include <infiniband/verbs.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <symvirt.h>
#include <unistd.h>

enum stage { IDLE, PREPARED, RELEASED };

struct store {
    const char *name;
    enum stage stage;
    uint64_t epoch;   /* of the switch under way */
    int refuses;      /* a checkpoint is being written */
    long releases, aborts;
    pthread_mutex_t lock;
    pthread_cond_t acquired;
    struct ibv_context *device; /* null where there is none */
    int to, from;               /* both ends of the connection, -1 while released */
};

static struct store stores[2] = {
    {.name = "store", .to = -1, .from = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .acquired = PTHREAD_COND_INITIALIZER},
    {.name = "index", .to = -1, .from = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .acquired = PTHREAD_COND_INITIALIZER},
};
static int callbacks_running;
static int both_added;

static const char *open_resources(struct store *store)
{
    int count = 0;
    struct ibv_device **devices = ibv_get_device_list(&count);
    store->device = devices && count > 0 ? ibv_open_device(devices[0]) : NULL;
    if (devices) {
        ibv_free_device_list(devices);
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    store->to = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || store->to < 0 || bind(listener, (struct sockaddr *)&address, length) ||
        listen(listener, 1) || getsockname(listener, (struct sockaddr *)&address, &length) ||
        connect(store->to, (struct sockaddr *)&address, length)) {
        return "cannot connect to itself";
    }
    store->from = accept(listener, NULL, NULL);
    close(listener);
    return store->from < 0 ? "cannot accept its own connection" : NULL;
}

static void close_resources(struct store *store)
{
    if (store->device) {
        ibv_close_device(store->device);
    }
    close(store->to);
    close(store->from);
    store->device = NULL;
    store->to = store->from = -1;
}

/* Uses the resources; waits for them if they are released. */
static void use(struct store *store, uint64_t what)
{
    uint64_t echo = 0;
    pthread_mutex_lock(&store->lock);
    while (store->stage == RELEASED) {
        pthread_cond_wait(&store->acquired, &store->lock);
    }
    VF_REQUIRE(write(store->to, &what, sizeof(what)) == sizeof(what) &&
                   read(store->from, &echo, sizeof(echo)) == sizeof(echo) && echo == what,
               "%s has lost its connection", store->name);
    pthread_mutex_unlock(&store->lock);
}

static void enter(struct store *store, const struct symvirt_switch *change, const char *what,
                  enum stage expected)
{
    VF_REQUIRE(__atomic_add_fetch(&callbacks_running, 1, __ATOMIC_SEQ_CST) == 1,
               "%s of %s beside another callback", what, store->name);
    VF_REQUIRE(change->size == sizeof(*change), "another struct symvirt_switch");
    pthread_mutex_lock(&store->lock);
    VF_REQUIRE(store->stage == expected, "%s of %s in stage %d", what, store->name, store->stage);
    VF_REQUIRE(expected == IDLE || store->epoch == change->epoch, "%s of switch %llu in %llu", what,
               (unsigned long long)change->epoch, (unsigned long long)store->epoch);
    store->epoch = change->epoch;
}

static void leave(struct store *store, enum stage stage)
{
    store->stage = stage;
    pthread_mutex_unlock(&store->lock);
    __atomic_sub_fetch(&callbacks_running, 1, __ATOMIC_SEQ_CST);
}

/* Between the two additions, and between the two removals, one is asked alone. */
static int both_take_part(void)
{
    return __atomic_load_n(&both_added, __ATOMIC_SEQ_CST);
}

static const char *prepare(void *context, const struct symvirt_switch *change)
{
    struct store *store = context;
    enter(store, change, "prepare", IDLE);
    VF_REQUIRE(!both_take_part() || store == &stores[0] || stores[0].stage == PREPARED,
               "asked in another order");
    int refuses = store->refuses;
    leave(store, refuses ? IDLE : PREPARED);
    return refuses ? "a checkpoint is being written" : NULL;
}

static const char *release(void *context, const struct symvirt_switch *change)
{
    struct store *store = context;
    enter(store, change, "release", PREPARED);
    VF_REQUIRE(!both_take_part() || store == &stores[1] || stores[1].stage == RELEASED,
               "released in another order");
    close_resources(store);
    store->releases++;
    leave(store, RELEASED);
    return NULL;
}

static const char *acquire(void *context, const struct symvirt_switch *change)
{
    struct store *store = context;
    enter(store, change, "acquire", RELEASED);
    VF_REQUIRE(change->tls != NULL, "the new transports are not told");
    const char *problem = open_resources(store);
    pthread_cond_broadcast(&store->acquired);
    leave(store, IDLE);
    return problem;
}

static void give_up(void *context, const struct symvirt_switch *change)
{
    struct store *store = context;
    enter(store, change, "abort", PREPARED);
    store->aborts++;
    leave(store, IDLE);
}

static void set_refusal(int refuses)
{
    pthread_mutex_lock(&stores[1].lock);
    stores[1].refuses = refuses;
    pthread_mutex_unlock(&stores[1].lock);
}

static struct symvirt_state state_now(void)
{
    struct symvirt_state state = {.size = sizeof(state)};
    int status = symvirt_get_state(&state);
    VF_REQUIRE(status == SYMVIRT_OK || status == SYMVIRT_ABSENT, "symvirt_get_state: %d", status);
    return state;
}

/* No epoch begins without the store; but a switch that began before it was added may still end. */
static void took_part(struct store *store, uint64_t *joined)
{
    uint64_t now = state_now().epoch;
    pthread_mutex_lock(&store->lock);
    if (store->epoch == 0) {
        *joined = now;
    }
    VF_REQUIRE(now == *joined || store->epoch >= now, "%s has seen switch %llu, and not %llu",
               store->name, (unsigned long long)store->epoch, (unsigned long long)now);
    pthread_mutex_unlock(&store->lock);
}

/* A region in which nothing may change. */
static void held_region(int library)
{
    VF_REQUIRE(symvirt_hold("collective write") == library, "symvirt_hold");
    VF_REQUIRE(symvirt_hold("header of it") == library, "symvirt_hold, nested");
    uint64_t before = state_now().epoch;
    struct timespec pause = {0, 20000000};
    nanosleep(&pause, NULL);
    struct symvirt_state after = state_now();
    VF_REQUIRE(after.epoch == before, "switched from %llu to %llu in a held region",
               (unsigned long long)before, (unsigned long long)after.epoch);
    VF_REQUIRE(library == SYMVIRT_ABSENT || after.holds >= 2, "%u regions", after.holds);
    VF_REQUIRE(symvirt_allow() == library && symvirt_allow() == library, "symvirt_allow");
}

int main(int argc, char **argv)
{
    vf_start("participant", &argc, &argv, MPI_THREAD_SINGLE);
    int left = (vf.rank + vf.ranks - 1) % vf.ranks, right = (vf.rank + 1) % vf.ranks;
    int refuse = (int)vf_option("--refuse", 0), endless = (int)vf_option("--endless", 0);
    enum { LENGTH = 16384 };
    char *outgoing = vf_alloc(LENGTH), *incoming = vf_alloc(LENGTH);

    int library = symvirt_version(NULL, NULL, NULL), seen[3] = {0, 0, 0};
    for (int i = 0; i < 2; i++) {
        VF_REQUIRE(open_resources(&stores[i]) == NULL, "no resources for %s", stores[i].name);
        struct symvirt_participant participant = {
            .size = sizeof(participant), .name = stores[i].name, .context = &stores[i],
            .prepare = prepare, .release = release, .acquire = acquire, .abort = give_up};
        VF_REQUIRE(symvirt_add(&participant) == library, "symvirt_add");
    }
    __atomic_store_n(&both_added, 1, __ATOMIC_SEQ_CST);
    if (endless && vf.rank == 0) {
        VF_REQUIRE(symvirt_hold("endless region") == library, "symvirt_hold");
    }
    uint64_t entered = state_now().epoch, joined = entered;
    while (vf_more()) {
        uint64_t sequence = (uint64_t)vf.round;
        set_refusal(refuse && vf.round % 100 < 50);
        vf_fill(outgoing, LENGTH, vf.rank, 1, sequence);
        MPI_Sendrecv(outgoing, LENGTH, MPI_BYTE, right, 1, incoming, LENGTH, MPI_BYTE, left, 1,
                     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        vf_check(incoming, LENGTH, left, 1, sequence);
        use(&stores[vf.round % 2], sequence);
        took_part(&stores[0], &joined);
        if (vf.round % 50 == 7 && vf.rank == vf.ranks - 1) {
            held_region(library);
        }
        if (vf.round % 5 == 3) {
            struct symvirt_state state = state_now();
            const char *names = state.transports[SYMVIRT_LOCAL];
            /* None without endpoints: before the first message, and before the first after a switch. */
            VF_REQUIRE(names[0] == 0 || strchr(names, '/'), "no transports are told: %s", names);
            VF_REQUIRE(state.transports[SYMVIRT_REMOTE][0] == 0, "a peer in another guest");
            seen[0] |= strstr(names, "tcp/") != NULL;
            seen[1] |= strstr(names, "memory") != NULL;
            seen[2] |= state.epoch > 0;
        }
    }
    if (endless && vf.rank == 0) {
        VF_REQUIRE(state_now().epoch == entered, "a switch happened in the region");
        VF_REQUIRE(symvirt_allow() == library, "symvirt_allow");
    }
    __atomic_store_n(&both_added, 0, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 2; i++) {
        VF_REQUIRE(symvirt_remove(stores[i].name, &stores[i]) == library, "symvirt_remove");
        VF_REQUIRE(stores[i].stage == IDLE && stores[i].to >= 0, "left without its resources");
        close_resources(&stores[i]);
    }
    printf("rank %d: %ld releases, %ld aborts, tcp %s, shm %s\n", vf.rank, stores[0].releases,
           stores[0].aborts, seen[0] ? "seen" : "not seen", seen[1] ? "seen" : "not seen");
    fflush(stdout);
    return vf_finish();
}
