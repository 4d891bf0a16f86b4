#include "data/sets/skipped.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "kernels/clean_text.h"

static const char OTHERS[] = "other reasons";

/* snprintf may cut a text inside a UTF-8 character: removes the partial one. */
static void cut_to_characters(char *text) {
    size_t size = strlen(text), back = 0;
    while (back < 4 && back < size && ((unsigned char)text[size - 1 - back] & 0xC0) == 0x80) back++;
    if (back == size || back == 4) return;
    unsigned char lead = (unsigned char)text[size - 1 - back];
    size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (lead >= 0xC0 && back + 1 < length) text[size - 1 - back] = 0;
}

static void copy_text(char *to, size_t size, const char *from) {
    if ((size_t)snprintf(to, size, "%s", from) >= size) cut_to_characters(to);
}

/* The entry of a kind, added if it is new (*fresh). The last entry is for all kinds that do not
 * fit. */
static SkippedKind *entry_of(Skipped *skipped, const char *kind, bool *fresh) {
    char name[sizeof skipped->kinds[0].kind];
    copy_text(name, sizeof name, kind);
    *fresh = false;
    for (int i = 0; i < skipped->kind_count; i++)
        if (!strcmp(skipped->kinds[i].kind, name)) return &skipped->kinds[i];
    if (skipped->kind_count == SKIPPED_KINDS) return &skipped->kinds[SKIPPED_KINDS - 1];
    *fresh = true;
    SkippedKind *made = &skipped->kinds[skipped->kind_count++];
    *made = (SkippedKind){.count = 0};
    copy_text(made->kind, sizeof made->kind, skipped->kind_count == SKIPPED_KINDS ? OTHERS : name);
    return made;
}

static SkippedKind *count_one(Skipped *skipped, const char *kind, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));
static SkippedKind *count_one(Skipped *skipped, const char *kind, const char *format,
                              va_list args) {
    bool fresh;
    SkippedKind *entry = entry_of(skipped, kind, &fresh);
    if (fresh) {
        int length = vsnprintf(entry->first, sizeof entry->first, format, args);
        if (length < 0) entry->first[0] = 0;
        if (length >= (int)sizeof entry->first) cut_to_characters(entry->first);
        clean_text(entry->first);
    }
    entry->count++;
    return entry;
}

void skipped_add(Skipped *skipped, const char *kind, const char *format, ...) {
    va_list args;
    va_start(args, format);
    count_one(skipped, kind, format, args);
    va_end(args);
    skipped->total++;
}

void skipped_more(Skipped *skipped, const char *kind, const char *format, ...) {
    va_list args;
    va_start(args, format);
    count_one(skipped, kind, format, args);
    va_end(args);
}

void skipped_note(Skipped *skipped, const char *kind, const char *format, ...) {
    va_list args;
    va_start(args, format);
    SkippedKind *entry = count_one(skipped, kind, format, args);
    va_end(args);
    /* Except the last, which collects the kinds that do not fit. */
    if (!strcmp(entry->kind, kind)) entry->note = true;
}

void skipped_merge(Skipped *into, const Skipped *from) {
    for (int i = 0; i < from->kind_count; i++) {
        bool fresh;
        SkippedKind *entry = entry_of(into, from->kinds[i].kind, &fresh);
        if (fresh) memcpy(entry->first, from->kinds[i].first, sizeof entry->first);
        entry->count += from->kinds[i].count;
        if (fresh) entry->note = from->kinds[i].note;
    }
    into->total += from->total;
}

int skipped_check(const Skipped *skipped, int64_t samples, double share, Error *err) {
    if ((double)skipped->total <= share * (double)samples) return 0;
    char text[sizeof err->text], most[64] = "none may be";
    int used = 0;
    if (share > 0) snprintf(most, sizeof most, "at most %g %% may be", 100 * share);
    /* Every kind gets an equal part of the message for its first case. */
    int kinds = 0;
    for (int i = 0; i < skipped->kind_count; i++) kinds += !skipped->kinds[i].note;
    int room = (int)(sizeof text - 160) / (kinds ? kinds : 1);
    for (int i = 0; i < skipped->kind_count; i++) {
        const SkippedKind *p = &skipped->kinds[i];
        char one[sizeof p->kind + sizeof p->first + 40];
        if (p->note) continue;
        snprintf(one, sizeof one, "%s%s: %lld (%s", used ? "; " : "", p->kind, (long long)p->count,
                 p->first);
        if ((int)strlen(one) > room - 2) {
            one[room - 5] = 0;
            cut_to_characters(one);
            strcat(one, "...");
        }
        used += snprintf(text + used, sizeof text - (size_t)used, "%s)", one);
    }
    text[used] = 0;
    return error_set(err, "%lld of %lld records would be skipped, %s: %s",
                     (long long)skipped->total, (long long)samples, most, text);
}
