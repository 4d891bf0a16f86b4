#include "data/formats/prompt.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/files/memory_stream.h"
#include "data/files/text_space.h"

json_t *object_fault(ObjectFault *fault, const char *kind, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(fault->why, sizeof fault->why, format, args);
    va_end(args);
    fault->kind = kind;
    return NULL;
}

/* One space between two parts. */
static void put_part(FILE *out, bool *any, const char *text, bool trim) {
    size_t size = strlen(text), begin = trim ? text_space_begin(text, size) : 0;
    if (trim) size -= begin + (begin < size ? text_space_end(text + begin, size - begin) : 0);
    if (*any) fputc(' ', out);
    *any = true;
    fwrite(text + begin, 1, size, out);
}

char *prompt_build(const Prompting *prompting, const Sample *sample) {
    static const Prompting none;
    char *text;
    size_t size;
    if (sample->finished) return strdup(sample->stem);
    const Prompting *p = prompting ? prompting : &none;
    const char *instruction = p->options.no_instruction ? ""
                              : p->options.instruction  ? p->options.instruction
                                                        : sample->instruction;
    FILE *out = memory_stream_open(&text, &size);
    if (!out) return NULL;
    bool any = !sample->bare;
    fputs(instruction, out);
    any |= instruction[0] != 0;
    for (int i = 0; i < p->count; i++) {
        put_part(out, &any, p->demonstrations[i].stem, true);
        put_part(out, &any, p->demonstrations[i].answer, true);
        fputs(sample->between, out);
    }
    put_part(out, &any, sample->stem, false);
    if (fclose(out) == 0) return text;
    free(text);
    return NULL;
}

json_t *prompt_object(json_t *object, const char *const *without, const Prompting *prompting,
                      const Sample *sample, ObjectFault *fault) {
    char *prompt = prompt_build(prompting, sample);
    json_t *copy = prompt ? json_copy(object) : NULL;
    fault->memory = true;
    for (int i = 0; copy && without[i]; i++) json_object_del(copy, without[i]);
    if (copy && (json_object_set_new(copy, "inputs", json_string(prompt)) ||
                 json_object_set_new(copy, "targets", json_string(sample->answer)))) {
        json_decref(copy);
        copy = NULL;
    }
    free(prompt);
    fault->memory = !copy;
    return copy;
}

/* ---- JSON as Python has it. ---- */

static unsigned code_point(const unsigned char **text) {
    const unsigned char *s = *text;
    int more = *s < 0x80 ? 0 : *s < 0xE0 ? 1 : *s < 0xF0 ? 2 : 3;
    unsigned code = more == 0 ? *s : *s & (0x3Fu >> more);
    for (int i = 1; i <= more && (s[i] & 0xC0) == 0x80; i++) code = code << 6 | (s[i] & 0x3Fu);
    for (s++; more-- && (*s & 0xC0) == 0x80;) s++;
    *text = s;
    return code;
}

static void put_string(FILE *out, const char *text) {
    static const char plain[] = "\b\f\n\r\t\"\\", escape[] = "bfnrt\"\\";
    const unsigned char *s = (const unsigned char *)text;
    fputc('"', out);
    while (*s) {
        unsigned code = code_point(&s);
        const char *found = code < 0x80 ? strchr(plain, (int)code) : NULL;
        if (found)
            fprintf(out, "\\%c", escape[found - plain]);
        else if (code >= 0x20 && code < 0x7F)
            fputc((int)code, out);
        else if (code < 0x10000)
            fprintf(out, "\\u%04x", code);
        else
            fprintf(out, "\\u%04x\\u%04x", 0xD7C0 + (code >> 10), 0xDC00 + (code & 0x3FF));
    }
    fputc('"', out);
}

char *prompt_line(const char *prompt, const char *answer) {
    char *text;
    size_t size;
    FILE *out = memory_stream_open(&text, &size);
    if (!out) return NULL;
    fputs("{\"inputs\": ", out);
    put_string(out, prompt);
    fputs(", \"targets\": ", out);
    put_string(out, answer);
    fputs("}\n", out);
    if (fclose(out) == 0) return text;
    free(text);
    return NULL;
}

/* ---- Templates. ---- */

/* The index of the name at text[0] == '{'; -1: none. */
static int name_at(const char *text, const char *const *names, int count) {
    const char *end = strchr(text, '}');
    for (int i = 0; end && i < count; i++)
        if (strlen(names[i]) == (size_t)(end - text - 1) &&
            !strncmp(names[i], text + 1, strlen(names[i])))
            return i;
    return -1;
}

char *template_fill(const char *text, const char *const *names, const char *const *values,
                    int count, bool *used, Error *err) {
    char *filled;
    size_t size;
    FILE *out = memory_stream_open(&filled, &size);
    bool any = false;
    for (; out && *text; text++) {
        int name = *text == '{' ? name_at(text, names, count) : -1;
        if (name < 0) {
            fputc(*text, out);
            continue;
        }
        any = true;
        if (used) used[name] = true;
        fputs(values[name], out);
        text = strchr(text, '}');
    }
    if (!out || fclose(out)) {
        if (out) free(filled);
        error_set(err, "out of memory for a prompt");
        return NULL;
    }
    if (any) return filled;
    free(filled);
    error_set(err, "the template has none of the fields of this file (the first is {%s})",
              names[0]);
    return NULL;
}

const char *parallel_entry(const ParallelFiles *files, int i, PromptOptions *options) {
    options->answers = files->source && i == 0 ? files->target : NULL;
    options->pairs = !options->answers;
    if (files->source && i == 0) return files->source;
    return i == (files->source != NULL) ? files->pairs : NULL;
}
