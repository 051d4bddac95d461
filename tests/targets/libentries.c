/* Functions that differ in their first instruction, which a trap has to emulate or relocate. */

#define ENTRY(name, body)                                    \
    __asm__(".text\n.globl " #name "\n.type " #name          \
            ",@function\n.p2align 4\n" #name ":\n" body      \
            "\n.size " #name ", . - " #name "\n")

ENTRY(entry_endbr, "endbr64\n lea 1(%rdi), %rax\n ret");
ENTRY(entry_push, "push %rbx\n mov %rdi, %rbx\n lea 2(%rbx), %rax\n pop %rbx\n ret");
ENTRY(entry_push_high, "push %r15\n mov %rdi, %r15\n lea 3(%r15), %rax\n pop %r15\n ret");
ENTRY(entry_sub_rsp, "sub $24, %rsp\n mov %rdi, 8(%rsp)\n mov 8(%rsp), %rax\n add $24, %rsp\n ret");
ENTRY(entry_sub_rsp_long, "sub $4104, %rsp\n mov %rdi, 8(%rsp)\n mov 8(%rsp), %rax\n add $4104, %rsp\n ret");
ENTRY(entry_mov, "mov %rdi, %rax\n add $4, %rax\n ret");
ENTRY(entry_mov32, "mov %edi, %eax\n ret");
ENTRY(entry_mov_imm, "mov $7, %eax\n add %rdi, %rax\n ret");
ENTRY(entry_xor, "xor %eax, %eax\n add %rdi, %rax\n ret");
ENTRY(entry_lea_rip, "lea entry_datum(%rip), %rax\n mov (%rax), %rax\n add %rdi, %rax\n ret");
ENTRY(entry_load_rip, "mov entry_datum(%rip), %rax\n add %rdi, %rax\n ret");
ENTRY(entry_cmp_rip, "cmpq $99, entry_datum(%rip)\n sete %al\n movzx %al, %eax\n add %rdi, %rax\n ret");
ENTRY(entry_jmp_short, "jmp 1f\n nop\n1: lea 5(%rdi), %rax\n ret");
ENTRY(entry_jmp_near, "jmp entry_tail\n");
ENTRY(entry_tail, "lea 6(%rdi), %rax\n ret");
ENTRY(entry_call, "call entry_tail\n inc %rax\n ret");
ENTRY(entry_jmp_memory, "jmp *entry_pointer(%rip)\n");
ENTRY(entry_ret, "ret\n");
ENTRY(entry_nop, "nop\n lea 8(%rdi), %rax\n ret");
ENTRY(entry_nop_long, "nopw 0x0(%rax,%rax,1)\n lea 9(%rdi), %rax\n ret");
ENTRY(entry_tls, "mov %fs:0, %rax\n sub %fs:0, %rax\n add %rdi, %rax\n ret");
ENTRY(entry_store, "mov %rdi, -8(%rsp)\n mov -8(%rsp), %rax\n ret");
ENTRY(entry_test, "test %rdi, %rdi\n setg %al\n movzx %al, %eax\n ret");
ENTRY(entry_cmov, "cmovz %rdi, %rax\n mov %rdi, %rax\n ret");
ENTRY(entry_vector, "movq %rdi, %xmm0\n paddq %xmm0, %xmm0\n movq %xmm0, %rax\n ret");
/* Jumps back to its own first instruction: passing the trap must not be a call of its own. */
ENTRY(entry_loop, "dec %rdi\n jg entry_loop\n lea 11(%rdi), %rax\n ret");
ENTRY(entry_branch, "jrcxz 1f\n1: lea 12(%rdi), %rax\n ret");

__asm__(".data\n.p2align 3\nentry_datum: .quad 99\nentry_pointer: .quad entry_tail\n.text\n");
