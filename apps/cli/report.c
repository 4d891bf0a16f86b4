#include "apps/cli/report.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "kernels/clean_text.h"

/* ---- Text from files. ---- */

static void put_clean(FILE *out, const char *text, size_t size) {
    for (size_t used, i = 0; i < size; i += used) {
        char one[4];
        size_t n = clean_character(one, text + i, size - i, &used);
        fwrite(one, 1, n, out);
    }
}

void report_error(const char *format, ...) {
    Error line; /* cleaned, and its ends are kept where it is too long */
    char *text;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    error_write(&line, "%s", length < 0 ? format : text);
    if (length >= 0) free(text);
    fprintf(stderr, "easyfirst: %s\n", line.text);
}

/* What the command line has for a kind of failure; "" where there is nothing. */
static const char *hint_of(int code) {
    switch (code) {
    case ERROR_NO_DEVICE:
        return " (--device cpu)";
    case ERROR_DEVICE_MEMORY:
        return " (--dtype bf16, --device cpu)";
    case ERROR_NO_LENGTH:
        return " (--length N, --length-predictor PATH)";
    case ERROR_NO_IMAGES:
        return " (--images FOLDER)";
    case ERROR_MISSING_PART:
        return ": name a model folder with one, or the part (--language, --vision, --projector)";
    default:
        return "";
    }
}

void report_failure(const Error *err) {
    report_error("%s%s", err->text, hint_of(err->code));
}

/* The ends of lines with which a format begins and ends are its own. */
void report_print(FILE *out, const char *format, ...) {
    char *text;
    size_t size = strlen(format), before = strspn(format, "\n"), after = 0;
    while (after < size - before && format[size - 1 - after] == '\n') after++;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    const char *line = length < 0 ? format : text;
    for (size_t i = 0; i < before; i++) putc('\n', out);
    put_clean(out, line + before, strlen(line) - before - after);
    for (size_t i = 0; i < after; i++) putc('\n', out);
    if (length >= 0) free(text);
}

size_t peak_memory(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : (size_t)usage.ru_maxrss * 1024; /* KiB on Linux */
}

void timings_add(Timings *t, const Answers *answers) {
    t->prefix_s += answers->tokenize_s + answers->prefix_s;
    t->decode_s += answers->decode_s;
    for (int i = 0; i < answers->count; i++) {
        const Answer *a = &answers->items[i];
        t->answers += a->error == NULL;
        t->skipped += a->skipped;
        t->shortened += a->dropped_tokens > 0, t->dropped += a->dropped_tokens;
    }
    for (int i = 0; i < answers->result_count; i++) {
        t->steps += answers->results[i].steps;
        t->evaluations += answers->results[i].evaluations;
    }
    t->counts.forwards += answers->counts.forwards;
    t->counts.canvases += answers->counts.canvases;
    t->counts.rows += answers->counts.rows;
    t->counts.prefix_rows += answers->counts.prefix_rows;
}

void timings_add_choices(Timings *t, const Choices *choices) {
    t->prefix_s += choices->tokenize_s + choices->prefix_s;
    t->decode_s += choices->decode_s;
    for (int i = 0; i < choices->count; i++) {
        const ChoiceAnswer *a = &choices->items[i];
        t->answers += a->answer.error == NULL;
        t->skipped += a->answer.skipped;
        t->shortened += a->answer.dropped_tokens > 0, t->dropped += a->answer.dropped_tokens;
        t->evaluations += a->evaluations;
        for (int k = 0; k < a->answer.count; k++) t->steps += a->scores[k].length;
    }
    t->counts.forwards += choices->counts.inspection_forwards;
    t->counts.canvases += choices->counts.inspections;
    t->counts.rows += choices->counts.inspection_rows;
    t->counts.prefix_rows += choices->counts.prefix_rows;
}

void timings_add_work(Timings *t, const ef_work *w) {
    t->encode_s += w->encode_seconds, t->images += w->images;
    t->prefix_s += w->prefix_seconds, t->decode_s += w->decode_seconds;
    t->answers += w->answered;
    t->skipped += w->skipped, t->shortened += w->shortened, t->dropped += w->dropped_tokens;
    t->steps += w->steps, t->evaluations += w->evaluations;
    t->counts.forwards += w->forwards, t->counts.canvases += w->canvases;
    t->counts.rows += w->rows, t->counts.prefix_rows += w->prefix_rows;
}

void report_long_prompts(const Timings *t) {
    char number[REPORT_NUMBER_SIZE], tokens[REPORT_NUMBER_SIZE];
    report_number(number, t->skipped);
    if (t->skipped)
        report_error("%s prompt%s skipped: too long to leave room for an answer", number,
                     t->skipped == 1 ? "" : "s");
    report_number(number, t->shortened), report_number(tokens, t->dropped);
    if (t->shortened)
        report_error("%s prompt%s shortened to leave room for an answer: the first tokens dropped, "
                     "%s in all",
                     number, t->shortened == 1 ? "" : "s", tokens);
}

static void print_strategy(const DecodeOptions *options) {
    char strategy[128];
    decode_strategy_name(strategy, sizeof strategy, options);
    char steps[64];
    if (options->iterations > 0)
        snprintf(steps, sizeof steps, "%d steps", options->iterations);
    else
        snprintf(steps, sizeof steps, "a step for each token, %d to %d", DECODE_LEAST_STEPS,
                 DECODE_STEPS);
    bool own_steps = options->strategy == DECODE_AR || options->strategy == DECODE_CONFIDENCE ||
                     options->strategy == DECODE_ENTROPY;
    char guidance[48] = "";
    if (options->guidance > 0)
        snprintf(guidance, sizeof guidance, ", guidance %g", (double)options->guidance);
    fprintf(stderr, "by      %s, %s, seed %llu%s%s\n", strategy,
            own_steps ? "a step for each token" : steps, (unsigned long long)options->seed,
            guidance, decode_approximate(options) ? ", approximate" : "");
}

static void print_timings(const Timings *t, const char *device, const ef_statistics *used,
                          const DecodeOptions *options) {
    fprintf(stderr, "load    %9.1f ms  %s\n", 1e3 * t->load_s, device);
    if (t->images)
        fprintf(stderr, "encode  %9.1f ms  %lld image%s\n", 1e3 * t->encode_s, (long long)t->images,
                t->images == 1 ? "" : "s");
    fprintf(stderr, "prefix  %9.1f ms  %lld rows\n", 1e3 * t->prefix_s,
            (long long)t->counts.prefix_rows);
    fprintf(stderr, "decode  %9.1f ms  %lld answer%s, %lld of %lld steps evaluated, %lld rows\n",
            1e3 * t->decode_s, (long long)t->answers, t->answers == 1 ? "" : "s",
            (long long)t->evaluations, (long long)t->steps, (long long)t->counts.rows);
    fprintf(stderr, "memory  %9.1f MB  at the most\n", 1e-6 * (double)peak_memory());
    if (used->device_memory_size) {
        fprintf(stderr, "gpu     %9.1f MB  in use at the end, of %.0f MB\n",
                1e-6 * (double)used->device_memory, 1e-6 * (double)used->device_memory_size);
        fprintf(stderr, "        %9llu     launches, %llu bytes to it, %llu from it\n",
                (unsigned long long)used->device_launches,
                (unsigned long long)used->device_bytes_up,
                (unsigned long long)used->device_bytes_down);
    }
    if (options)
        print_strategy(options);
    else
        fputs("by      the likelihood of each choice\n", stderr);
}

void timings_print(const Timings *t, Device *device, const DecodeOptions *options) {
    size_t unused;
    const DeviceCounters did = device_counters(device);
    ef_statistics used = {.device_launches = did.launches,
                          .device_bytes_up = did.bytes_up,
                          .device_bytes_down = did.bytes_down};
    if (device_memory(device, &unused, &used.device_memory_size))
        used.device_memory = used.device_memory_size - unused;
    print_timings(t, device_text(device), &used, options);
}

void timings_print_model(const Timings *t, ef_model *model, const DecodeOptions *options) {
    ef_statistics used;
    ef_model_statistics(model, &used, sizeof used);
    print_timings(t, ef_model_device(model), &used, options);
}

/* ---- Numbers as people read them. ---- */

void report_duration(char out[REPORT_NUMBER_SIZE], double seconds) {
    if (!(seconds >= 0) || seconds > 1e8)
        snprintf(out, REPORT_NUMBER_SIZE, "?");
    else if (seconds < 59.5)
        snprintf(out, REPORT_NUMBER_SIZE, "%.0f s", seconds);
    else if (seconds < 3600 - 30)
        snprintf(out, REPORT_NUMBER_SIZE, "%.0f min", seconds / 60);
    else if (seconds < 2 * 86400)
        snprintf(out, REPORT_NUMBER_SIZE, "%d h %d min", (int)(seconds / 3600),
                 (int)(seconds / 60) % 60);
    else
        snprintf(out, REPORT_NUMBER_SIZE, "%d d %d h", (int)(seconds / 86400),
                 (int)(seconds / 3600) % 24);
}

void report_number(char out[REPORT_NUMBER_SIZE], int64_t number) {
    char digits[REPORT_NUMBER_SIZE];
    int size = snprintf(digits, sizeof digits, "%lld", (long long)number), n = 0;
    for (int i = 0; i < size && n < REPORT_NUMBER_SIZE - 2; i++) {
        if (i && (size - i) % 3 == 0 && digits[i - 1] != '-') out[n++] = ',';
        out[n++] = digits[i];
    }
    out[n] = 0;
}

/* ---- Standard output. ---- */

void report_field(FILE *out, const char *text) {
    put_clean(out, text, strlen(text));
}

int report_flush(Error *err) {
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return 0;
    return error_set(err, "standard output: %s", errno ? strerror(errno) : "could not be written");
}
