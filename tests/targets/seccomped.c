/* seccomped errno|kill [late]: a program whose own seccomp filter refuses what a tracer would have it call: userfaultfd
 * (errno: EPERM, kill: the process dies), and mremap and prctl in the same way; so is rt_sigaction, which is called to withdraw.
 * late: the filter is installed after READY. */
#define _GNU_SOURCE
#include "target.h"
#include "work.h"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define REFUSE(number, action) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, action)

static void refuse(unsigned action)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        REFUSE(SYS_userfaultfd, action),
        REFUSE(SYS_mremap, action),
        REFUSE(SYS_prctl, action),
        REFUSE(SYS_rt_sigaction, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

int main(int argc, char **argv)
{
    static uint64_t words[512] = {1};
    unsigned action = argc > 1 && !strcmp(argv[1], "kill") ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_ERRNO | EPERM;
    int late = argc > 2;
    if (late)
        ready();
    refuse(action);
    if (!late)
        ready();
    for (int i = 0; i < 10; i++)
        printf("%d %016lx\n", i, work_mix(words, 512, 2));
    return success();
}
