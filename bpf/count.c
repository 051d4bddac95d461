/* Calls of functions: how many, how long, by whom, with what. Entries are probed, and the places that they return to.

   No return probes: they put addresses of the kernel's on the stack, and C++ exceptions end a program that meets one.
   From outside: NFUNCTIONS, NSITES, KEPT (observations of each function). */
#include <uapi/linux/ptrace.h>

#define NREGISTERS 6
#define NSTACK 8
#define NVALUES (NREGISTERS + NSTACK)
#define NCLASSES 48

struct counted {
    u64 entries, calls, returned, total_ns;
    u64 latency[NCLASSES]; /* from 2^i ns on to 2^(i+1) */
};
/* sp: what the stack pointer will be when the call has returned. */
struct call_key { u64 sp, tid; };
struct call { u64 entered_ns, caller, function, slot; };
struct pair { u64 function, what; };
/* values: registers of arguments, then words of the stack above the return address; there: bit i for pointed[i]. */
struct observation {
    u64 latency_ns, sp, there;
    u64 values[NVALUES], pointed[NVALUES];
};

BPF_ARRAY(functions, struct counted, NFUNCTIONS);
BPF_ARRAY(sites, u64, NSITES);
BPF_ARRAY(observations, struct observation, NFUNCTIONS *KEPT);
BPF_TABLE("lru_hash", struct call_key, struct call, away, 16384);
BPF_TABLE("lru_hash", struct pair, struct call_key, outermost, 16384);
BPF_TABLE("lru_hash", struct pair, u64, threads, 16384);
BPF_TABLE("lru_hash", struct pair, u64, callers, 16384);

static __always_inline u64 word_at(u64 address) {
    u64 word = 0;
    bpf_probe_read_user(&word, sizeof(word), (void *)address);
    return word;
}

/* Whether a call of this function is below ours: its frame is, and nothing has come over its return address. */
static __always_inline bool is_nested(struct pair *key, u64 sp) {
    struct call_key *below = outermost.lookup(key);
    if (!below || sp + 8 >= below->sp)
        return false;
    struct call_key at = *below;
    struct call *call = away.lookup(&at);
    return call && call->caller == word_at(at.sp - 8);
}

static __always_inline void note_value(struct observation *one, int at, u64 value) {
    one->values[at] = value;
    if (!bpf_probe_read_user(&one->pointed[at], 8, (void *)value))
        one->there |= 1ULL << at;
}

static __always_inline void observe(struct pt_regs *ctx, u32 at) {
    struct observation *one = observations.lookup(&at);
    if (!one)
        return;
    one->latency_ns = 0, one->there = 0, one->sp = ctx->sp;
    note_value(one, 0, ctx->di), note_value(one, 1, ctx->si), note_value(one, 2, ctx->dx);
    note_value(one, 3, ctx->cx), note_value(one, 4, ctx->r8), note_value(one, 5, ctx->r9);
#pragma unroll
    for (int i = 0; i < NSTACK; i++)
        note_value(one, NREGISTERS + i, word_at(ctx->sp + 8 + 8 * i));
}

static __always_inline void add(u64 *count, u64 more) {
    if (count)
        __sync_fetch_and_add(count, more);
}

int on_entry(struct pt_regs *ctx) {
    u64 zero = 0, sp = ctx->sp, tid = (u32)bpf_get_current_pid_tgid();
    u32 function = bpf_get_attach_cookie(ctx);
    struct counted *counted = functions.lookup(&function);
    if (!counted)
        return 0;
    add(&counted->entries, 1);
    struct pair thread = {function, tid};
    if (is_nested(&thread, sp))
        return 0;
    u64 before = __sync_fetch_and_add(&counted->calls, 1);
    struct call_key key = {sp + 8, tid};
    outermost.update(&thread, &key);
    add(threads.lookup_or_try_init(&thread, &zero), 1);
    struct call call = {0, word_at(sp), function, NFUNCTIONS * KEPT};
    struct pair caller = {function, call.caller};
    add(callers.lookup_or_try_init(&caller, &zero), 1);
    /* Algorithm R: each call is kept with the same probability. */
    u64 slot = before < KEPT ? before : (u64)bpf_get_prandom_u32() % (before + 1);
    if (slot < KEPT) {
        call.slot = function * KEPT + slot;
        observe(ctx, call.slot);
    }
    call.entered_ns = bpf_ktime_get_ns();
    away.update(&key, &call);
    return 0;
}

int on_return(struct pt_regs *ctx) {
    u64 now = bpf_ktime_get_ns();
    u32 site = bpf_get_attach_cookie(ctx);
    add(sites.lookup(&site), 1);
    struct call_key key = {ctx->sp, (u32)bpf_get_current_pid_tgid()};
    struct call *call = away.lookup(&key);
    if (!call || call->caller != ctx->ip)
        return 0;
    u64 took = now - call->entered_ns;
    u32 function = call->function, slot = call->slot;
    struct counted *counted = functions.lookup(&function);
    if (counted) {
        u32 class = bpf_log2l(took | 1) - 1; /* bcc's is one more than the logarithm */
        add(&counted->returned, 1);
        add(&counted->total_ns, took);
        if (class < NCLASSES)
            add(&counted->latency[class], 1);
    }
    struct observation *one = observations.lookup(&slot);
    if (one)
        one->latency_ns = took;
    struct pair thread = {function, key.tid};
    outermost.delete(&thread);
    away.delete(&key);
    return 0;
}
