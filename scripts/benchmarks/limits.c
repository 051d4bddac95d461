/* What the machine itself can do at best: the limits that radium's figures are divided by.
 * Prints one JSON object on stdout.
 * Example: limits pingpong 20000
 *
 * pingpong N   64 bytes there and back over loopback TCP, blocking, between two processes
 * bulk N       64 MiB over loopback TCP into memory that is warm, answered by one byte
 * stop N       a breakpoint met by a traced process: int3, PTRACE_GETREGS, PTRACE_CONT
 * seize N      PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_GETREGS, PTRACE_DETACH of a running process
 * Each with the two processes on one CPU, on two, and where the scheduler puts them.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_NBYTES 64
#define BULK_NBYTES (64 << 20)

enum placement { ONE_CPU, TWO_CPUS, FREE, PLACEMENTS };
static const char *const placement_names[] = {"one_cpu", "two_cpus", "free"};
static cpu_set_t allowed; /* what this program may use, before anything was placed */

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

/* Sorts the samples. */
static void print_statistics(const char *name, long *ns, int n)
{
    qsort(ns, n, sizeof *ns, compare);
    printf("\"%s\": {\"median_ns\": %ld, \"p99_ns\": %ld, \"min_ns\": %ld}", name, ns[n / 2], ns[(long)n * 99 / 100], ns[0]);
}

/* The second process (`second`) shares the first's CPU, or takes the next allowed one, if there is one. */
static void place(enum placement placement, int second)
{
    cpu_set_t one;
    int cpu = -1, wanted = placement == TWO_CPUS && second ? 2 : 1;
    if (placement == FREE)
        return;
    while (wanted && ++cpu < CPU_SETSIZE)
        wanted -= CPU_ISSET(cpu, &allowed);
    if (wanted)
        return;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one))
        fail("sched_setaffinity");
}

static void send_all(int fd, const char *data, size_t nbytes)
{
    while (nbytes) {
        ssize_t sent = write(fd, data, nbytes);
        if (sent <= 0)
            fail("write");
        data += sent, nbytes -= sent;
    }
}

/* Returns 0 when the peer has closed. */
static int receive_all(int fd, char *data, size_t nbytes)
{
    while (nbytes) {
        ssize_t got = read(fd, data, nbytes);
        if (got < 0)
            fail("read");
        if (!got)
            return 0;
        data += got, nbytes -= got;
    }
    return 1;
}

/* Receives nbytes and answers with nanswer of them, until the peer closes. */
static void echo_forever(int fd, size_t nbytes, size_t nanswer)
{
    char *data = malloc(nbytes);
    memset(data, 1, nbytes);
    while (receive_all(fd, data, nbytes))
        send_all(fd, data, nanswer);
    _exit(0);
}

/* Starts the echoing process and returns a connection to it. */
static int connect_to_echo(size_t nbytes, size_t nanswer, enum placement placement, pid_t *child)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int on = 1, fd, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (void *)&address, length) || listen(listener, 1) || getsockname(listener, (void *)&address, &length))
        fail("listen");
    if (!(*child = fork())) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        place(placement, 1);
        fd = accept(listener, 0, 0);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        close(listener);
        echo_forever(fd, nbytes, nanswer);
    }
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (void *)&address, length))
        fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    close(listener);
    return fd;
}

/* ns gets the durations of n exchanges; a tenth more before them only warms up. */
static void time_exchanges(size_t nbytes, size_t nanswer, enum placement placement, int n, long *ns)
{
    pid_t child;
    int fd = connect_to_echo(nbytes, nanswer, placement, &child);
    char *data = malloc(nbytes);
    memset(data, 2, nbytes);
    for (int i = -n / 10 - 1; i < n; i++) {
        long start = now_ns();
        send_all(fd, data, nbytes);
        if (!receive_all(fd, data, nanswer))
            fail("peer closed");
        if (i >= 0)
            ns[i] = now_ns() - start;
    }
    free(data);
    close(fd);
    waitpid(child, 0, 0);
}

static void time_pingpong(enum placement placement, int n, long *ns)
{
    time_exchanges(MESSAGE_NBYTES, MESSAGE_NBYTES, placement, n, ns);
}

static void time_bulk(enum placement placement, int n, long *ns)
{
    time_exchanges(BULK_NBYTES, 1, placement, n, ns);
}

/* ns gets the durations from one breakpoint to the next: one stop, one look at the registers, one resume. */
static void time_stops(enum placement placement, int n, long *ns)
{
    struct user_regs_struct regs;
    int status;
    pid_t child = fork();
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        place(placement, 1);
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        for (;;)
            __asm__ volatile("int3");
    }
    for (int i = -1; i < n; i++) {
        long start = now_ns();
        if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status) || ptrace(PTRACE_GETREGS, child, 0, &regs) ||
            ptrace(PTRACE_CONT, child, 0, 0))
            fail("stop");
        if (i >= 0)
            ns[i] = now_ns() - start;
    }
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
}

/* ns gets how long the traced process stood still: from the request to stop until it runs on untraced. */
static void time_seizes(enum placement placement, int n, long *ns)
{
    struct user_regs_struct regs;
    int status;
    pid_t child = fork();
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        place(placement, 1);
        for (volatile long spin = 0;;)
            spin++;
    }
    for (int i = 0; i < n; i++) {
        if (ptrace(PTRACE_SEIZE, child, 0, 0))
            fail("seize");
        long start = now_ns();
        if (ptrace(PTRACE_INTERRUPT, child, 0, 0) || waitpid(child, &status, 0) != child ||
            ptrace(PTRACE_GETREGS, child, 0, &regs) || ptrace(PTRACE_DETACH, child, 0, 0))
            fail("interrupt");
        ns[i] = now_ns() - start;
    }
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
}

static const struct {
    const char *name;
    void (*measure)(enum placement, int n, long *ns);
} kinds[] = {{"pingpong", time_pingpong}, {"bulk", time_bulk}, {"stop", time_stops}, {"seize", time_seizes}};

/* In a child of its own, so that its placement ends with it. */
static void measure_placed(enum placement placement, int kind, int n)
{
    int status;
    pid_t child = fork();
    if (!child) {
        long *ns = calloc(n, sizeof *ns);
        place(placement, 0);
        kinds[kind].measure(placement, n, ns);
        print_statistics(placement_names[placement], ns, n);
        fflush(stdout);
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child || status)
        exit(1);
}

int main(int argc, char **argv)
{
    int n = argc == 3 ? atoi(argv[2]) : 0, kind = 0;
    while (n > 0 && kind < 4 && strcmp(argv[1], kinds[kind].name))
        kind++;
    if (n < 1 || kind == 4) {
        fprintf(stderr, "usage: limits pingpong|bulk|stop|seize N\n");
        return 2;
    }
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        fail("sched_getaffinity");
    for (enum placement placement = 0; placement < PLACEMENTS; placement++) {
        printf(placement ? ", " : "{");
        fflush(stdout);
        measure_placed(placement, kind, n);
    }
    printf("}\n");
    return 0;
}
