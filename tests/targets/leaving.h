#ifndef LEAVING_H
#define LEAVING_H
#include <setjmp.h>
#include <stdint.h>

extern uint64_t leaving_words[256];
void leaving_exit(int status);
void leaving_at_once(int status);
long leaving_jump(jmp_buf back, sigjmp_buf signal_back, long n);
long leaving_turns(long n);
long leaving_thread(long n);
#endif
