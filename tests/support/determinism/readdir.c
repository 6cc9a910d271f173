/* Preloaded into a process (LD_PRELOAD): every directory is read backwards, its entries in descending order of their
   names, whatever order the file system has. What relies on the order of a directory then shows it. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct listing {
    DIR *folder;
    struct dirent **entries;
    size_t count, next;
    struct listing *rest;
};
static struct listing *listings; /* one for each directory that is being read */
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int descending(const void *a, const void *b) {
    return strcmp((*(struct dirent **)b)->d_name, (*(struct dirent **)a)->d_name);
}

static struct listing *read_all(DIR *folder) {
    struct listing *list = calloc(1, sizeof *list);
    list->folder = folder;
    for (struct dirent *entry; (entry = NEXT(readdir)(folder));) {
        list->entries = realloc(list->entries, (list->count + 1) * sizeof *list->entries);
        list->entries[list->count] = malloc(entry->d_reclen);
        memcpy(list->entries[list->count++], entry, entry->d_reclen);
    }
    if (list->count) qsort(list->entries, list->count, sizeof *list->entries, descending);
    list->rest = listings;
    return listings = list;
}

struct dirent *readdir(DIR *folder) {
    pthread_mutex_lock(&one_at_a_time);
    struct listing *list = listings;
    while (list && list->folder != folder) list = list->rest;
    if (!list) list = read_all(folder);
    struct dirent *entry = list->next < list->count ? list->entries[list->next++] : NULL;
    pthread_mutex_unlock(&one_at_a_time);
    return entry;
}

/* 64-bit Linux has one layout of an entry under both names. */
struct dirent64 *readdir64(DIR *folder) { return (struct dirent64 *)readdir(folder); }

static void forget(DIR *folder) {
    pthread_mutex_lock(&one_at_a_time);
    for (struct listing **place = &listings; *place; place = &(*place)->rest)
        if ((*place)->folder == folder) {
            struct listing *list = *place;
            *place = list->rest;
            while (list->count) free(list->entries[--list->count]);
            free(list->entries);
            free(list);
            break;
        }
    pthread_mutex_unlock(&one_at_a_time);
}

void rewinddir(DIR *folder) {
    forget(folder);
    NEXT(rewinddir)(folder);
}

int closedir(DIR *folder) {
    forget(folder);
    return NEXT(closedir)(folder);
}
