/* A statically linked program: prints where its functions are, then READY, then waits for the end of its input. */
#include <stdio.h>

__attribute__((noinline)) int main_function(int x) { return x * 3; }

static int implementation(int x) { return x + 1; }
static int (*choose(void))(int) { return implementation; }
int main_chosen(int x) __attribute__((ifunc("choose")));

int main(void)
{
	printf("main_function %p\nmain_chosen %p\nREADY %d\n", (void *)main_function, (void *)implementation, main_chosen(1));
	fflush(stdout);
	return getchar() == EOF ? 0 : main_function(1);
}
