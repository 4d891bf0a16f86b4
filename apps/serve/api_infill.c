#include <stdlib.h>
#include <string.h>

#include "apps/serve/api.h"

static const char mask_word[] = "<mask>"; /* a gap, in templates (projector/template.h) */

enum { LEAST_UNDERSCORES = 3 };

/* A text as a template's, without gaps. */
static void put_escaped(FILE *out, const char *text, bool before_gap) {
    if (*text == '{' && !before_gap) fputc('\\', out); /* after one */
    while (*text) {
        size_t slashes = strspn(text, "\\"), underscores = strspn(text + slashes, "_");
        bool end = !text[slashes + underscores];
        bool marks = underscores >= LEAST_UNDERSCORES;
        size_t more = marks ? slashes + 1 : before_gap && end && !underscores ? slashes : 0;
        for (size_t i = 0; i < slashes + more; i++) fputc('\\', out);
        fwrite(text + slashes, 1, underscores, out);
        text += slashes + underscores;
        if (*text && *text != '\\' && *text != '_') fputc(*text++, out);
    }
}

bool api_infill(Asked *a, const char *prompt, const char *suffix) {
    char *text = NULL;
    size_t size = 0, prefix = strlen(prompt);
    if (strstr(prompt, mask_word) || strstr(suffix, mask_word))
        return ASKED_WRONG(a, "suffix", "with a suffix, texts with %s cannot be infilled",
                           mask_word);
    if (prefix && prompt[prefix - 1] == '_')
        return ASKED_WRONG(a, "prompt", "a prompt before a gap cannot end in an underscore");
    if (suffix[0] == '_')
        return ASKED_WRONG(a, "suffix", "a suffix cannot begin with an underscore");
    FILE *out = open_memstream(&text, &size);
    if (!out) return ASKED_WRONG(a, "suffix", "out of memory");
    put_escaped(out, prompt, true);
    fputs("___", out);
    if (a->request.length) fprintf(out, "{%d}", a->request.length);
    put_escaped(out, suffix, false);
    bool failed = ferror(out);
    if (fclose(out) || failed) {
        free(text);
        return ASKED_WRONG(a, "suffix", "out of memory");
    }
    a->answer_template = text;
    a->prefix = prefix, a->suffix = strlen(suffix);
    a->infill = true;
    a->request.length = 0;
    a->text = strdup("");
    return a->text || ASKED_WRONG(a, "prompt", "out of memory");
}
