#define _GNU_SOURCE
#include "target.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

struct record {
    uint64_t words[8];
};

static void fill(struct record *record, uint64_t *state)
{
    for (int i = 0; i < 8; i++)
        record->words[i] = next_random(state);
}

long files_write(const char *path, long records)
{
    uint64_t state = 5;
    struct record record;
    FILE *file = fopen(path, "w+");
    CHECK(file);
    for (long i = 0; i < records; i++) {
        fill(&record, &state);
        CHECK(fwrite(&record, sizeof record, 1, file) == 1);
    }
    CHECK(fseek(file, sizeof record, SEEK_SET) == 0);
    memset(&record, 7, sizeof record);
    CHECK(fwrite(&record, sizeof record, 1, file) == 1);
    CHECK(fseek(file, 0, SEEK_END) == 0);
    long nbytes = ftell(file);
    CHECK(fclose(file) == 0);
    return nbytes;
}

uint64_t files_read(const char *path, long records)
{
    uint64_t hash = FNV_START, state = 9;
    struct record record;
    FILE *file = fopen(path, "r");
    CHECK(file);
    for (int i = 0; i < 50; i++) {
        long at = (long)(next_random(&state) % (uint64_t)records);
        CHECK(fseek(file, at * (long)sizeof record, SEEK_SET) == 0);
        CHECK(fread(&record, sizeof record, 1, file) == 1);
        hash = fnv(hash, &record, sizeof record);
    }
    CHECK(fseek(file, 0, SEEK_END) == 0 && fread(&record, 1, 1, file) == 0 && feof(file));
    CHECK(fclose(file) == 0);
    return hash;
}

long files_stat(const char *path)
{
    struct stat found;
    if (stat(path, &found))
        return -errno;
    return S_ISREG(found.st_mode) ? found.st_size : -1;
}

long files_list(const char *folder)
{
    long count = 0, length = 0;
    DIR *opened = opendir(folder);
    CHECK(opened);
    for (struct dirent *entry; (entry = readdir(opened)); count++)
        length += (long)strlen(entry->d_name);
    CHECK(closedir(opened) == 0);
    return count * 1000 + length;
}

uint64_t files_map(const char *path)
{
    struct stat found;
    int opened = open(path, O_RDONLY);
    CHECK(opened >= 0 && fstat(opened, &found) == 0);
    size_t nbytes = (size_t)found.st_size;
    uint64_t *words = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, opened, 0);
    CHECK(words != MAP_FAILED && close(opened) == 0);
    uint64_t hash = fnv(FNV_START, words, nbytes);
    words[nbytes / 16]++;
    hash = fnv(hash, words, nbytes);
    CHECK(munmap(words, nbytes) == 0);
    return hash;
}

uint64_t files_pipe(long turns)
{
    int ends[2];
    uint64_t state = 3, hash = FNV_START, words[64], back[64];
    CHECK(pipe(ends) == 0);
    for (long turn = 0; turn < turns; turn++) {
        for (int i = 0; i < 64; i++)
            words[i] = next_random(&state) ^ hash;
        CHECK(write(ends[1], words, sizeof words) == sizeof words);
        memset(back, 0, sizeof back);
        CHECK(read(ends[0], back, sizeof back) == sizeof back);
        hash = fnv(hash, back, sizeof back);
    }
    CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
    return hash;
}

/* The heap grows between the reads, by small blocks and by ones of their own mapping. */
uint64_t files_grow(const char *path, long blocks)
{
    uint64_t hash = FNV_START;
    unsigned char **kept = calloc((size_t)blocks, sizeof *kept);
    int opened = open(path, O_RDONLY);
    CHECK(kept && opened >= 0);
    for (long i = 0; i < blocks; i++) {
        size_t nbytes = i % 10 == 9 ? 400000 : 20000;
        kept[i] = malloc(nbytes);
        CHECK(kept[i]);
        memset(kept[i], (int)i, nbytes);
        CHECK(read(opened, kept[i] + nbytes / 2, 1000) == 1000);
    }
    CHECK(close(opened) == 0);
    for (long i = 0; i < blocks; i++) {
        hash = fnv(hash, kept[i], i % 10 == 9 ? 400000 : 20000);
        free(kept[i]);
    }
    free(kept);
    return hash;
}
