/* formats.c - the tables of formats, and opening a file of any of them. */
#include "data/formats/formats.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/files/file_kind.h"
#include "data/files/file_open.h"
#include "data/files/path.h"
#include "data/files/spool.h"
#include "data/files/text_space.h"
#include "data/formats/open.h"

/* In the order in which they are tried. */
const Format formats[] = {
    {"parallel files", "line", parallel_known, parallel_read, .prompt_template = true,
     .by_option = true},
    {"SQuAD and TyDiQA", "question", squad_known, squad_read, .json = true},
    {"BBH", "example", bbh_known, bbh_read, .json = true},
    {"star graphs", "line", star_known, star_read},
    {"MMLU", "line", mmlu_known, mmlu_read},
    {"CSV with a header", "line", csv_header_known, csv_header_read, .prompt_template = true},
    {"TSV with a header", "line", tsv_header_known, tsv_header_read, .prompt_template = true},
    {"MGSM", "line", mgsm_known, mgsm_read},
    {"tab-separated pairs", "line", pairs_known, pairs_read, .prompt_template = true},
    {NULL, NULL, NULL, NULL},
};

const ObjectFormat object_formats[] = {
    {"{\"inputs\", \"targets\"}", finished_known, finished_convert},
    {"messages", messages_known, messages_convert},
    {"Alpaca", alpaca_known, alpaca_convert},
    {"GSM8K", gsm8k_known, gsm8k_convert},
    {NULL, NULL, NULL},
};

const char *formats_list(void) {
    return "{\"inputs\", \"targets\"}, LLaVA's conversations, messages, Alpaca, GSM8K, SQuAD and "
           "TyDiQA, BBH, "
           "MMLU, MGSM, star graphs, CSV and TSV with a header, tab-separated pairs or parallel "
           "files, "
           "each also as .gz";
}

/* ---- For readers. ---- */

void sample_reject(FormatInput *input, int64_t number, const char *kind, const char *format, ...) {
    char what[256], why[400];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    input->rejected++;
    snprintf(why, sizeof why, "%.120s: %s %lld: %s", input->path, input->unit, (long long)number,
             what);
    if (input->reject) input->reject(input->user, kind, why);
}

static bool is_utf8(const char *text) {
    json_t *checked = json_string(text);
    json_decref(checked);
    return checked;
}

static bool is_blank(const char *text) {
    size_t size = strlen(text);
    return text_space_begin(text, size) == size;
}

int sample_take(FormatInput *input, const Sample *sample, Error *err) {
    if (input->limit && input->taken >= input->limit) return 1;
    if (!is_utf8(sample->stem) || !is_utf8(sample->answer)) {
        sample_reject(input, sample->number, "not UTF-8", "not valid UTF-8; convert the file");
        return 0;
    }
    if (is_blank(sample->answer)) {
        sample_reject(input, sample->number, "empty answer", "it has an answer without words");
        return 0;
    }
    input->taken++;
    input->instructed |= sample->instruction[0] != 0;
    int status = input->take(input->user, sample, err);
    return status || !input->limit || input->taken < input->limit ? status : 1;
}

json_t *format_object(json_t *object, const Prompting *prompting, ObjectFault *fault) {
    for (int i = 0; object_formats[i].name; i++)
        if (object_formats[i].known(object))
            return object_formats[i].convert(object, prompting, fault);
    return json_incref(object);
}

bool format_object_known(const json_t *object) {
    for (int i = 0; object_formats[i].name; i++)
        if (object_formats[i].known(object)) return true;
    return false;
}

/* ---- Opening. ---- */

int format_fd_open(const char *path, int64_t *bytes, bool *temporary, Error *err) {
    unsigned char head[2] = {0};
    *temporary = false;
    int fd = file_open_input(path, "data are read more than once: save them to a file", bytes, err);
    if (fd < 0 || pread(fd, head, 2, 0) != 2 || head[0] != 0x1F || head[1] != 0x8B) return fd;
    int spool = spool_open(err);
    if (spool >= 0 && spool_gunzip(spool, fd, path, err)) {
        close(spool);
        spool = -1;
    }
    close(fd);
    *temporary = true;
    return spool;
}

/* The first byte other than white space and a byte order mark; 0: none in the first 4 KiB. */
static char first_byte(int fd) {
    char head[4096];
    ssize_t got = pread(fd, head, sizeof head, 0);
    size_t size = got > 0 ? (size_t)got : 0;
    size_t at = size >= 3 && !memcmp(head, "\xEF\xBB\xBF", 3) ? 3 : 0;
    while (at < size && strchr(" \t\r\n", head[at]) && head[at]) at++;
    return at < size ? head[at] : 0;
}

static const Format *find_format(FormatInput *input) {
    char head[FILE_KIND_BYTES], first = first_byte(input->fd);
    ssize_t got = pread(input->fd, head, sizeof head, 0);
    bool json = first == '{' || first == '[';
    bool binary = got > 0 && file_kind_hint(head, (size_t)got);
    const PromptOptions *o = input->prompting ? &input->prompting->options : NULL;
    for (int i = 0; !binary && formats[i].name; i++) {
        const Format *f = &formats[i];
        if (o && o->pairs && f->known != pairs_known) continue;
        if ((f->json == json || f->by_option) && f->known(input)) return f;
        if (o && o->pairs) return f;
    }
    return NULL;
}

/* Options of prompts that a file cannot follow are refused. */
static int check_options(const FormatInput *input, const Format *format, Error *err) {
    const PromptOptions *o = input->prompting ? &input->prompting->options : NULL;
    char first = first_byte(input->fd);
    if (!o) return 0;
    if (o->prompt_template && (!format || !format->prompt_template))
        return error_set(err,
                         "%s: %s, which have no use for a template: it makes the prompts of "
                         "parallel files and of tables",
                         input->path, format ? format->name : "finished prompts");
    if (!format && o->no_instruction)
        return error_set(err,
                         "%s: its prompts have no instruction of their own that could be left "
                         "out; expected MMLU, SQuAD or TyDiQA",
                         input->path);
    if (!format && (o->instruction || o->shots) && first && first != '{' && first != '[')
        return error_set(err,
                         "%s: plain text, which has no prompts that an instruction or "
                         "demonstrations could go before",
                         input->path);
    return 0;
}

/* The file that is written. */
typedef struct Build {
    const FormatOptions *options;
    int spool;
    char *pending; /* lines that were not written yet */
    size_t size, capacity;
    char first[400]; /* why the first record was rejected; "" */
} Build;

static void build_reject(void *user, const char *kind, const char *why) {
    Build *b = user;
    if (!b->first[0]) snprintf(b->first, sizeof b->first, "%s (%.300s)", kind, why);
    if (b->options->reject) b->options->reject(b->options->user, kind, why);
}

static int flush(Build *b, Error *err) {
    int status = spool_write(b->spool, b->pending, b->size, err);
    b->size = 0;
    return status;
}

static int build_take(void *user, const Sample *sample, Error *err) {
    enum { BLOCK = 1 << 16 };
    Build *b = user;
    char *prompt = prompt_build(b->options->prompting, sample);
    char *line = prompt ? prompt_line(prompt, sample->answer) : NULL;
    free(prompt);
    if (!line) return error_set(err, "out of memory for a prompt");
    size_t size = strlen(line);
    int status = 0;
    if (b->size && b->size + size > BLOCK) status = flush(b, err);
    if (status == 0 && size > BLOCK)
        status = spool_write(b->spool, line, size, err);
    else if (status == 0) {
        if (!b->pending) b->pending = malloc(BLOCK);
        if (!b->pending)
            status = error_set(err, "out of memory for prompts");
        else
            memcpy(b->pending + b->size, line, size), b->size += size;
    }
    free(line);
    return status;
}

static int build(FormatFile *file, FormatInput *input, int (*read)(FormatInput *, Error *),
                 const FormatOptions *options, Error *err) {
    Build b = {.options = options, .spool = spool_open(err)};
    if (b.spool < 0) return -1;
    input->user = &b, input->reject = build_reject, input->take = build_take;
    int status = read(input, err);
    if (status == 0) status = flush(&b, err);
    input->user = NULL;
    free(b.pending);
    const PromptOptions *o = options->prompting ? &options->prompting->options : NULL;
    if (status == 0 && !input->taken)
        status = error_set(err, "%s: %s%s%s", input->path,
                           b.first[0] ? "none of its records can be used: " : "it has no records",
                           b.first, "");
    if (status == 0 && o && o->no_instruction && !o->instruction && !input->instructed)
        status = error_set(err, "%s: its prompts have no instruction that could be left out",
                           input->path);
    if (status) {
        close(b.spool);
        return -1;
    }
    close(file->fd);
    file->fd = b.spool, file->temporary = true, file->built = true;
    file->rejected = input->rejected;
    return 0;
}

static int open_any(FormatFile *file, FormatInput *input, const FormatOptions *options,
                    Error *err) {
    const Format *format = find_format(input);
    TRY(check_options(input, format, err));
    input->unit = format ? format->unit : "record";
    if (format) return build(file, input, format->read, options, err);
    if (options->lines && first_byte(input->fd) == '[')
        return build(file, input, objects_read, options, err);
    return 0;
}

/* The name of a file for its language and subject; the caller frees it. */
static char *name_of(const char *path) {
    const char *name = path_name(path);
    size_t size = strlen(name);
    if (size > 3 && !strcmp(name + size - 3, ".gz")) size -= 3;
    return strndup(name, size);
}

int format_file_open(FormatFile *file, const char *path, const FormatOptions *options, Error *err) {
    *file = (FormatFile){.fd = -1};
    file->fd = format_fd_open(path, &file->bytes, &file->temporary, err);
    if (file->fd < 0) return -1;
    FormatInput input = {.path = path,
                         .prompting = options->prompting,
                         .fd = file->fd,
                         .text = options->text,
                         .limit = options->limit};
    char *name = name_of(path);
    input.name = name;
    int status = name ? open_any(file, &input, options, err) : error_set(err, "out of memory");
    free(name);
    if (status) {
        close(file->fd);
        file->fd = -1;
    }
    return status;
}

int format_file_check(const char *path, const FormatOptions *options, Error *err) {
    unsigned char head[2] = {0};
    FormatInput input = {.path = path, .prompting = options->prompting, .text = options->text};
    char *name = name_of(path);
    if (!name) return error_set(err, "out of memory");
    input.name = name;
    input.fd =
        file_open_input(path, "data are read more than once: save them to a file", NULL, err);
    int status = input.fd < 0 ? -1 : 0;
    bool packed =
        status == 0 && pread(input.fd, head, 2, 0) == 2 && head[0] == 0x1F && head[1] == 0x8B;
    const Format *format = status || packed ? NULL : find_format(&input);
    if (status == 0 && !packed) status = check_options(&input, format, err);
    if (input.fd >= 0) close(input.fd);
    free(name);
    return status ? -1 : packed || format;
}

/* ---- Demonstrations. ---- */

static int take_demonstration(void *user, const Sample *sample, Error *err) {
    Prompting *p = user;
    Demonstration *d = &p->demonstrations[p->count++];
    d->stem = strdup(sample->stem);
    d->answer = strdup(sample->shown ? sample->shown : sample->answer);
    return d->stem && d->answer ? 0 : error_set(err, "out of memory for demonstrations");
}

static int read_demonstrations(Prompting *p, Error *err) {
    const PromptOptions *o = &p->options;
    const Prompting own = {.options = {.prompt_template = o->prompt_template}};
    char *name = name_of(o->demonstrations);
    int64_t bytes;
    bool temporary;
    if (!name) return error_set(err, "out of memory");
    FormatInput input = {.path = o->demonstrations,
                         .name = name,
                         .prompting = &own,
                         .limit = o->shots,
                         .take = take_demonstration,
                         .user = p};
    input.fd = format_fd_open(input.path, &bytes, &temporary, err);
    const Format *format = input.fd < 0 ? NULL : find_format(&input);
    char first = input.fd < 0 ? 0 : first_byte(input.fd);
    input.unit = format ? format->unit : "record";
    int status = input.fd < 0 ? -1 : 0;
    if (status == 0 && !format && first != '{' && first != '[')
        status = error_set(err, "%s: not of a format that is read: %s", input.path, formats_list());
    else if (status == 0)
        status = (format ? format->read : objects_read)(&input, err);
    if (status == 0 && p->count < o->shots)
        status = error_set(err, "%s: %d demonstrations that can be used, expected at least %d",
                           input.path, p->count, o->shots);
    if (input.fd >= 0) close(input.fd);
    free(name);
    return status;
}

int prompting_open(Prompting *prompting, const PromptOptions *options, Error *err) {
    const char *texts[] = {options->instruction, options->prompt_template};
    *prompting = (Prompting){.options = *options};
    for (int i = 0; i < 2; i++)
        if (texts[i] && !is_utf8(texts[i]))
            return error_set(err, "the %s is not valid UTF-8", i ? "template" : "instruction");
    if (!options->shots || !options->demonstrations) return 0;
    prompting->demonstrations = calloc((size_t)options->shots, sizeof *prompting->demonstrations);
    int status = prompting->demonstrations ? read_demonstrations(prompting, err)
                                           : error_set(err, "out of memory for demonstrations");
    if (status) prompting_close(prompting);
    return status;
}

void prompting_close(Prompting *prompting) {
    for (int i = 0; i < prompting->count; i++)
        free(prompting->demonstrations[i].stem), free(prompting->demonstrations[i].answer);
    free(prompting->demonstrations);
    *prompting = (Prompting){.count = 0};
}
