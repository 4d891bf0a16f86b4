#include "apps/show/markup.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/files/file_write.h"
#include "data/files/memory_stream.h"

int markup_begin(Markup *markup, Error *err) {
    *markup = (Markup){0};
    markup->out = memory_stream_open(&markup->text, &markup->size);
    return markup->out ? 0 : error_set(err, "out of memory for the output");
}

int markup_end(Markup *markup, int failed, Error *err) {
    bool bad = ferror(markup->out);
    bad |= fclose(markup->out) != 0;
    markup->out = NULL;
    if (bad && !failed) failed = error_set(err, "out of memory for the output");
    if (!failed) return 0;
    free(markup->text), markup->text = NULL;
    return -1;
}

/* Size in bytes of a character that XML does not allow: C0 except white space, U+FFFE and
 * U+FFFF. */
static size_t forbidden(const unsigned char *at) {
    if (*at < 0x20) return *at != '\t' && *at != '\n' && *at != '\r';
    return at[0] == 0xEF && at[1] == 0xBF && (at[2] == 0xBE || at[2] == 0xBF) ? 3 : 0;
}

void markup_put(FILE *out, const char *text) {
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        size_t skip = forbidden(at);
        if (skip)
            fputs("\xef\xbf\xbd", out);
        else if (*at == '&')
            fputs("&amp;", out);
        else if (*at == '<')
            fputs("&lt;", out);
        else if (*at == '>')
            fputs("&gt;", out);
        else if (*at == '"')
            fputs("&quot;", out);
        else if (*at == '\'')
            fputs("&#39;", out);
        else
            putc(*at, out);
        at += skip ? skip : 1;
    }
}

int markup_write(char *text, size_t size, const char *path, Error *err) {
    if (!text) return -1;
    int status = 0;
    if (strcmp(path, "-"))
        status = file_write_all(path, text, size, err);
    else if (fwrite(text, 1, size, stdout) != size)
        status = error_set(err, "standard output: writing failed");
    free(text);
    return status;
}
