/* hammer calls THREADS CALLS | each CALLS | blocked|merged CALLS | tgkill|kill|socket|many CALLS | fork CALLS | hold CALLS | on CALLS:
   calls the functions of libhammer and checks every result; says how many SIGURG of its own it has got. */
#define _GNU_SOURCE
#include "hammer.h"
#include "target.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <netinet/in.h>

static long calls;
static volatile sig_atomic_t urgent;

static void on_urgent(int number)
{
    (void)number;
    urgent++;
}

static long some(long from, long to)
{
    long sum = 0;
    for (long x = from; x < to; x++) {
        long back = hammer_push(x);
        CHECK(back == 3 * x + 1);
        sum += back;
    }
    return sum;
}

static void *work(void *number)
{
    long from = (long)number * calls;
    return (void *)some(from, from + calls);
}

static long in_threads(int nthreads)
{
    pthread_t threads[64];
    long sum = 0;
    CHECK(nthreads <= 64);
    for (long i = 0; i < nthreads; i++)
        CHECK(!pthread_create(&threads[i], NULL, work, (void *)i));
    for (int i = 0; i < nthreads; i++) {
        void *part;
        CHECK(!pthread_join(threads[i], &part));
        sum += (long)part;
    }
    return sum;
}

static void each(void)
{
#define CALL(name) \
    for (long x = 0; x < calls; x++) CHECK(hammer_##name(x) == 3 * x + 1);
    HAMMERS(CALL)
}

static void mask(int how)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGURG);
    CHECK(!pthread_sigmask(how, &set, NULL));
}

static void handle_urgent(void)
{
    struct sigaction action = {.sa_handler = on_urgent};
    CHECK(!sigaction(SIGURG, &action, NULL));
}

/* A connection of which one end sends urgent data, and the other's owner is this process. */
static int urgent_socket(void)
{
    int listening = socket(AF_INET, SOCK_STREAM, 0), out = socket(AF_INET, SOCK_STREAM, 0), in;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    CHECK(!bind(listening, (struct sockaddr *)&address, size) && !listen(listening, 1));
    CHECK(!getsockname(listening, (struct sockaddr *)&address, &size));
    CHECK(!connect(out, (struct sockaddr *)&address, size) && (in = accept(listening, NULL, NULL)) >= 0);
    CHECK(!fcntl(in, F_SETOWN, getpid()));
    return out;
}

/* Sends itself SIGURG before every tenth call; each is handled before what comes next. */
static void with_own(const char *how)
{
    int out = strcmp(how, "socket") ? -1 : urgent_socket();
    long sent = 0;
    handle_urgent();
    for (long x = 0; x < calls; x++) {
        if (x % 10 == 0) {
            if (out >= 0)
                CHECK(send(out, "!", 1, MSG_OOB) == 1);
            else if (!strcmp(how, "kill"))
                kill(getpid(), SIGURG);
            else
                syscall(SYS_tgkill, getpid(), gettid(), SIGURG);
            sent++;
            while (urgent < sent)
                continue;
        }
        CHECK(hammer_push(x) == 3 * x + 1 && urgent == sent);
    }
}

/* One of its own waits behind the mask when radium's is sent, and takes that in. */
static void merged(void)
{
    handle_urgent();
    for (long x = 0; x < calls; x++) {
        mask(SIG_BLOCK);
        syscall(SYS_tgkill, getpid(), gettid(), SIGURG);
        CHECK(hammer_push(x) == 3 * x + 1);
        mask(SIG_UNBLOCK);
        CHECK(urgent == x + 1);
    }
}

static volatile int is_over;

static void *send_many(void *thread)
{
    while (!is_over)
        if (!pthread_kill(*(pthread_t *)thread, SIGURG))
            usleep(50);
    return NULL;
}

/* Another thread sends SIGURG at any moment; at the end there is one more, which must be met. */
static void with_many(void)
{
    pthread_t self = pthread_self(), other;
    handle_urgent();
    CHECK(!pthread_create(&other, NULL, send_many, &self));
    some(0, calls);
    is_over = 1;
    CHECK(!pthread_join(other, NULL));
    int before = urgent;
    CHECK(!raise(SIGURG) && urgent == before + 1);
}

/* A thread that blocks SIGURG, and one that ends so; behind the mask nothing of ours must wait. */
static void blocked(void)
{
    pthread_t thread;
    handle_urgent();
    mask(SIG_BLOCK);
    some(0, calls);
    CHECK(!pthread_create(&thread, NULL, work, (void *)0) && !pthread_join(thread, NULL));
    mask(SIG_UNBLOCK);
    some(0, calls);
    CHECK(urgent == 0);
}

static void fork_some(void)
{
    for (int i = 0; i < 3; i++) {
        int status;
        pid_t child = fork();
        if (!child) {
            some(0, calls);
            _exit(7);
        }
        some(0, calls);
        CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7);
    }
}

static void on_term(int number)
{
    (void)number;
    is_over = 1;
}

/* Blocks SIGURG until SIGTERM comes. */
static void hold(void)
{
    handle_urgent();
    signal(SIGTERM, on_term);
    mask(SIG_BLOCK);
    some(0, calls);
    puts("BLOCKED");
    fflush(stdout);
    while (!is_over)
        usleep(1000);
    mask(SIG_UNBLOCK);
    CHECK(urgent == 0);
}

/* Until SIGTERM, a line for each round. */
static void go_on(void)
{
    handle_urgent();
    signal(SIGTERM, on_term);
    for (long round = 0; !is_over; round++) {
        printf("progress %ld %ld\n", round, in_threads(2));
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "calls";
    int is_many = !strcmp(mode, "calls");
    calls = argument(argc, argv, is_many ? 3 : 2, 1000);
    ready();
    if (is_many) {
        handle_urgent();
        printf("sum %ld\n", in_threads((int)argument(argc, argv, 2, 4)));
        CHECK(urgent == 0);
    } else if (!strcmp(mode, "each"))
        each();
    else if (!strcmp(mode, "blocked"))
        blocked();
    else if (!strcmp(mode, "fork"))
        fork_some();
    else if (!strcmp(mode, "many"))
        with_many();
    else if (!strcmp(mode, "merged"))
        merged();
    else if (!strcmp(mode, "hold"))
        hold();
    else if (!strcmp(mode, "on"))
        go_on();
    else
        with_own(mode);
    return success();
}
