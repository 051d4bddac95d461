/* entries [ROUNDS]: calls every function of libentries and prints what each returned. */
#include "target.h"

#define EACH(X)                                                                                               \
    X(entry_endbr) X(entry_push) X(entry_push_high) X(entry_sub_rsp) X(entry_sub_rsp_long) X(entry_mov)       \
    X(entry_mov32) X(entry_mov_imm) X(entry_xor) X(entry_lea_rip) X(entry_load_rip) X(entry_cmp_rip)          \
    X(entry_jmp_short) X(entry_jmp_near) X(entry_call) X(entry_jmp_memory) X(entry_nop) X(entry_nop_long)     \
    X(entry_tls) X(entry_store) X(entry_test) X(entry_cmov) X(entry_vector) X(entry_loop) X(entry_branch)

#define DECLARE(name) long name(long);
EACH(DECLARE)
void entry_ret(void);

int main(int argc, char **argv)
{
    long rounds = argument(argc, argv, 1, 3);
    ready();
    for (long i = 1; i <= rounds; i++) {
        entry_ret();
#define CALL(name) printf(#name " %ld\n", name(i));
        EACH(CALL)
    }
    return success();
}
