/* Calls their guard mostly rejects: x is a multiple of 997 where it does not. */
#define HAMMERS(each) \
    each(push) each(endbr) each(jmp) each(nop) each(call) each(sub) each(store) each(load) each(vector) each(nop_long)
#define DECLARE(name) long hammer_##name(long x);
HAMMERS(DECLARE)
