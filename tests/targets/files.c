/* files: split functions that work with files in a folder of their own. */
#include "target.h"

long files_write(const char *path, long records);
uint64_t files_read(const char *path, long records);
long files_stat(const char *path);
long files_list(const char *folder);
uint64_t files_map(const char *path);
uint64_t files_pipe(long turns);
uint64_t files_grow(const char *path, long blocks);

int main(void)
{
    char folder[] = "files-XXXXXX", path[64], other[64];
    ready();
    CHECK(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/records", folder);
    snprintf(other, sizeof other, "%s/other", folder);
    printf("written %ld\n", files_write(path, 3000));
    printf("written %ld\n", files_write(other, 10));
    printf("read %016lx\n", files_read(path, 3000));
    printf("size %ld %ld\n", files_stat(path), files_stat("files-missing"));
    printf("entries %ld\n", files_list(folder));
    printf("mapped %016lx\n", files_map(path));
    printf("pipe %016lx\n", files_pipe(20));
    printf("grown %016lx\n", files_grow(path, 40));
    CHECK(unlink(path) == 0 && unlink(other) == 0 && rmdir(folder) == 0);
    return success();
}
