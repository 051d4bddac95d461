/* Prints where functions are ("NAME ADDRESS"), then READY; then obeys lines: open PATH, close, call, quit. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define KEEP __attribute__((noinline, used))

extern int lib_chosen(int x);

KEEP int main_function(int x) { return x * 3; }
KEEP static int main_static(int x) { return x * 5; }
KEEP __attribute__((visibility("hidden"))) int main_hidden(int x) { return x * 7; }
int main_data = 11;

static int implementation(int x) { return x + main_data; }
static int (*choose(void))(int) { return implementation; }
int main_chosen(int x) __attribute__((ifunc("choose")));

static void print_addresses(int count, char **names)
{
	printf("main_function %p\n", (void *)main_function);
	printf("main_static %p\n", (void *)main_static);
	printf("main_chosen %p\n", (void *)implementation);
	for (int i = 0; i < count; i++) {
		char *version = strchr(names[i], '@');
		if (version) {
			*version = 0;
			printf("%s@%s %p\n", names[i], version + 1, dlvsym(RTLD_DEFAULT, names[i], version + 1));
		} else {
			printf("%s %p\n", names[i], dlsym(RTLD_DEFAULT, names[i]));
		}
	}
}

int main(int argc, char **argv)
{
	char line[4096];
	void *opened = 0;

	print_addresses(argc - 1, argv + 1);
	printf("READY %d\n", main_chosen(1) + main_hidden(1));
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "open ", 5)) {
			opened = dlopen(line + 5, RTLD_NOW);
			printf("%p\n", opened ? dlsym(opened, "lib_add") : 0);
		} else if (!strcmp(line, "close")) {
			printf("%d\n", dlclose(opened));
		} else if (!strcmp(line, "call")) {
			printf("%d\n", lib_chosen(1));
		} else {
			break;
		}
		fflush(stdout);
	}
	return 0;
}
