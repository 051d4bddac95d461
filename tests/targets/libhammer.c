/* Functions that differ in their first instruction; each returns 3 * x + 1. */
#include "hammer.h"

#define ENTRY(name, begins, ends)                            \
    __asm__(".text\n.globl " #name "\n.type " #name          \
            ",@function\n.p2align 4\n" #name ":\n" begins    \
            "\n lea 1(%rdi,%rdi,2), %rax\n" ends             \
            "\n ret\n.size " #name ", . - " #name "\n")

ENTRY(hammer_push, "push %rbx\n mov %rdi, %rbx", "pop %rbx");
ENTRY(hammer_endbr, "endbr64\n push %r12", "pop %r12");
ENTRY(hammer_jmp, "jmp 1f\n nop\n1:", "");
ENTRY(hammer_nop, "nop", "");
ENTRY(hammer_call, "call 1f\n ret\n1:", "");
ENTRY(hammer_sub, "sub $24, %rsp", "add $24, %rsp");
ENTRY(hammer_store, "mov %rdi, -8(%rsp)", "");
ENTRY(hammer_load, "mov (%rsp), %rax", "");
ENTRY(hammer_vector, "movq %rdi, %xmm0", "");
ENTRY(hammer_nop_long, ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00", "");
