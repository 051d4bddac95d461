/* Samples of where chosen processes are: user registers, and the top of the user stack.

   From outside: STACK_NBYTES, a multiple of CHUNK_NBYTES; RING_NPAGES, a power of two; WAKE_EVERY, in samples. */
#include <uapi/linux/bpf_perf_event.h>
#include <uapi/linux/ptrace.h>

/* A page that is not there ends the copy, so no chunk may cross into one. */
#define CHUNK_NBYTES PAGE_SIZE

struct sample {
    u32 tgid, tid;
    u64 stack_nbytes;
    u64 registers[17]; /* as DWARF numbers them: System V psABI for AMD64, figure 3.36 */
    u8 stack[STACK_NBYTES];
};

BPF_RINGBUF_OUTPUT(samples, RING_NPAGES);
BPF_HASH(wanted, u32, u32, 16384);
BPF_ARRAY(lost, u64, 1);
BPF_ARRAY(taken, u64, 1);

static __always_inline void take_registers(struct sample *to, struct pt_regs *from) {
    u64 *all = to->registers;
    all[0] = from->ax, all[1] = from->dx, all[2] = from->cx, all[3] = from->bx;
    all[4] = from->si, all[5] = from->di, all[6] = from->bp, all[7] = from->sp;
    all[8] = from->r8, all[9] = from->r9, all[10] = from->r10, all[11] = from->r11;
    all[12] = from->r12, all[13] = from->r13, all[14] = from->r14, all[15] = from->r15, all[16] = from->ip;
}

int on_tick(struct bpf_perf_event_data *ctx) {
    u64 id = bpf_get_current_pid_tgid();
    u32 tgid = id >> 32, none = 0;
    if (!wanted.lookup(&tgid))
        return 0;
    struct sample *one = samples.ringbuf_reserve(sizeof(struct sample));
    if (!one) {
        u64 *count = lost.lookup(&none);
        if (count)
            __sync_fetch_and_add(count, 1);
        return 0;
    }
    /* Of the entry into the kernel, by whatever way: in a system call, too, it is the user's frame that we want. */
    struct pt_regs regs = {};
    bpf_probe_read_kernel(&regs, sizeof(regs), (void *)bpf_task_pt_regs(bpf_get_current_task_btf()));
    one->tgid = tgid, one->tid = id;
    take_registers(one, &regs);
    u64 done = 0, first = PAGE_SIZE - (regs.sp & (PAGE_SIZE - 1));
    /* The first piece ends with its page; the others are whole pages. */
    first &= ~7ULL;
    if (first > 0 && first <= CHUNK_NBYTES && !bpf_probe_read_user(one->stack, first, (void *)regs.sp)) {
        done = first;
#pragma unroll
        for (int i = 1; i < STACK_NBYTES / CHUNK_NBYTES; i++) {
            if (done > STACK_NBYTES - CHUNK_NBYTES)
                break;
            if (bpf_probe_read_user(one->stack + done, CHUNK_NBYTES, (void *)(regs.sp + done)))
                break;
            done += CHUNK_NBYTES;
        }
    }
    one->stack_nbytes = done;
    u64 *count = taken.lookup(&none);
    bool wake = count && __sync_fetch_and_add(count, 1) % WAKE_EVERY == 0;
    samples.ringbuf_submit(one, wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
    return 0;
}
