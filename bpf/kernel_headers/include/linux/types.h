/* What bcc's helpers.h and our programs need of <linux/types.h> and <asm/ptrace.h>: no kernel headers are wanted then. */
#ifndef RADIUM_TYPES_H
#define RADIUM_TYPES_H

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u8 u8, uint8_t;
typedef __s8 s8, int8_t;
typedef __u16 u16, uint16_t, __be16, __le16, __sum16;
typedef __s16 s16, int16_t;
typedef __u32 u32, uint32_t, __be32, __le32, __wsum;
typedef __s32 s32, int32_t;
typedef __u64 u64, uint64_t, __be64, __le64;
typedef __s64 s64, int64_t;
typedef _Bool bool;
typedef unsigned long size_t, uintptr_t;
typedef long ssize_t;
typedef int pid_t;
enum { false, true };

#define NULL ((void *)0)
#define PAGE_SIZE 4096
#define TASK_COMM_LEN 16
#define __aligned_u64 __u64 __attribute__((aligned(8)))
#define __always_inline inline __attribute__((always_inline))

/* arch/x86/include/asm/ptrace.h: an ABI of the kernel's for uprobe programs. */
struct pt_regs {
    unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

#endif
