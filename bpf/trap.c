/* What the kernel does where a uprobe lies, at the entry of a split function. The guards' programs come behind this.
 *
 * A call that its guard rejects is counted, and goes on. Any other leaves its registers in `records`, and SIGURG makes its
 * thread stop for its tracer. A record that is there already has been seen by nobody: its thread blocks SIGURG.
 *
 * NAMESPACE_DEVICE, NAMESPACE_INODE: the pid namespace of the tracer and its tracees, unless the tracer is in the first one.
 * NSLOTS: split points that are counted; NSTRIPES, a power of two: counters of each, so that CPUs do not wait for each other.
 */

#define SIGURG 23
#define MMAPABLE (1 << 10)

struct record {
	u64 slot;
	u64 regs[21];
};

struct count {
	u64 rejected;
	u64 missed;
};

BPF_F_TABLE("hash", u32, struct record, records, 16384, 0);
BPF_F_TABLE("array", u32, struct count, counts, NSLOTS * NSTRIPES, MMAPABLE);

static __always_inline struct count *count_of(u64 slot)
{
	u32 key = (bpf_get_smp_processor_id() & (NSTRIPES - 1)) * NSLOTS + slot;
	return counts.lookup(&key);
}

static __always_inline void count_rejected(u64 slot)
{
	struct count *count = count_of(slot);
	if (count) lock_xadd(&count->rejected, 1);
}

static __always_inline void count_missed(u64 slot)
{
	struct count *count = count_of(slot);
	if (count) lock_xadd(&count->missed, 1);
}

/* As the tracer knows it. */
static __always_inline u32 current_thread(void)
{
#ifdef NAMESPACE_INODE
	struct bpf_pidns_info ids = {};
	bpf_get_ns_current_pid_tgid(NAMESPACE_DEVICE, NAMESPACE_INODE, &ids, sizeof ids);
	return ids.pid;
#else
	return bpf_get_current_pid_tgid();
#endif
}

static __always_inline void hit(struct pt_regs *ctx, u64 slot)
{
	u32 tid = current_thread();
	struct record record = { slot, {
		ctx->r15, ctx->r14, ctx->r13, ctx->r12, ctx->bp, ctx->bx, ctx->r11, ctx->r10, ctx->r9, ctx->r8, ctx->ax,
		ctx->cx, ctx->dx, ctx->si, ctx->di, ctx->orig_ax, ctx->ip, ctx->cs, ctx->flags, ctx->sp, ctx->ss,
	} };
	struct record *before = records.lookup(&tid);
	if (before) count_missed(before->slot);
	if (records.update(&tid, &record)) {
		count_missed(slot);
	} else if (bpf_send_signal_thread(SIGURG)) {
		records.delete(&tid);
		count_missed(slot);
	}
}

#define NO { count_rejected(bpf_get_attach_cookie(ctx)); return 0; }
#define YES { hit(ctx, bpf_get_attach_cookie(ctx)); return 0; }
#define UNSURE YES
