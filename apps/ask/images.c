/* images.c - see images.h. */
#include "apps/ask/images.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "data/files/path.h"

static bool image_ending(const char *word) {
    static const char *const endings[] = {".jpg", ".jpeg", ".png", ".gif",  ".bmp", ".webp",
                                          ".tif", ".tiff", ".ppm", ".heic", ".avif"};
    size_t size = strlen(word);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t n = strlen(endings[i]);
        if (size > n && !strcasecmp(word + size - n, endings[i])) return true;
    }
    return false;
}

bool image_named(const char *word) {
    return !strpbrk(word, " \t\n?") && image_ending(word);
}

bool image_folder(const char *word) {
    struct stat info;
    return stat(word, &info) == 0 && S_ISDIR(info.st_mode);
}

/* In a folder names may have spaces. */
static int is_image(const struct dirent *entry) {
    return entry->d_name[0] != '.' && image_ending(entry->d_name);
}

static int add(TextList *list, const char *text, Error *err) {
    const char **items = realloc(list->items, ((size_t)list->count + 1) * sizeof *items);
    if (!items) return error_set(err, "out of memory for names of images");
    list->items = items;
    list->items[list->count++] = text;
    return 0;
}

static int add_name(TextList *list, TextList *texts, const char *folder, const char *name,
                    Error *err) {
    char *path = path_join(folder, name, err);
    if (!path) return -1;
    if (add(texts, path, err)) {
        free(path);
        return -1;
    }
    return add(list, path, err);
}

static int add_folder(TextList *list, TextList *texts, const char *folder, Error *err) {
    struct dirent **entries;
    int count = scandir(folder, &entries, is_image, alphasort), status = 0;
    if (count < 0) return error_set(err, "%s: %s", folder, strerror(errno));
    for (int i = 0; i < count; i++) {
        if (status == 0) status = add_name(list, texts, folder, entries[i]->d_name, err);
        free(entries[i]);
    }
    free(entries);
    if (count || status) return status;
    return error_set(err, "%s: a folder without images: expected files named .jpg, .png and so on",
                     folder);
}

int images_expand(TextList *list, TextList *texts, Error *err) {
    TextList out = {0};
    int status = 0;
    for (int i = 0; i < list->count && status == 0; i++)
        status = image_folder(list->items[i]) ? add_folder(&out, texts, list->items[i], err)
                                              : add(&out, list->items[i], err);
    if (status) {
        free(out.items);
        return status;
    }
    free(list->items);
    *list = out;
    return 0;
}

void images_free(TextList *texts) {
    for (int i = 0; i < texts->count; i++) free((char *)texts->items[i]);
    free(texts->items);
    *texts = (TextList){0};
}
