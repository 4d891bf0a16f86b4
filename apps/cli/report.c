#include "apps/cli/report.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "apps/show/trace.h"
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

void timings_print(const Timings *t, Device *device, const DecodeOptions *options) {
    size_t free_bytes, total;
    char strategy[128];
    decode_strategy_name(strategy, sizeof strategy, options);
    fprintf(stderr, "load    %9.1f ms  %s\n", 1e3 * t->load_s, device_text(device));
    if (t->images)
        fprintf(stderr, "encode  %9.1f ms  %lld image%s\n", 1e3 * t->encode_s, (long long)t->images,
                t->images == 1 ? "" : "s");
    fprintf(stderr, "prefix  %9.1f ms  %lld rows\n", 1e3 * t->prefix_s,
            (long long)t->counts.prefix_rows);
    fprintf(stderr, "decode  %9.1f ms  %lld answer%s, %lld of %lld steps evaluated, %lld rows\n",
            1e3 * t->decode_s, (long long)t->answers, t->answers == 1 ? "" : "s",
            (long long)t->evaluations, (long long)t->steps, (long long)t->counts.rows);
    fprintf(stderr, "memory  %9.1f MB  at the most\n", 1e-6 * (double)peak_memory());
    if (device_memory(device, &free_bytes, &total)) {
        const DeviceCounters did = device_counters(device);
        fprintf(stderr, "gpu     %9.1f MB  in use at the end, of %.0f MB\n",
                1e-6 * (double)(total - free_bytes), 1e-6 * (double)total);
        fprintf(stderr, "        %9llu     launches, %llu bytes to it, %llu from it\n",
                (unsigned long long)did.launches, (unsigned long long)did.bytes_up,
                (unsigned long long)did.bytes_down);
    }
    char steps[64];
    if (options->iterations > 0)
        snprintf(steps, sizeof steps, "%d steps", options->iterations);
    else
        snprintf(steps, sizeof steps, "a step for each token, %d to %d", DECODE_LEAST_STEPS,
                 DECODE_STEPS);
    fprintf(stderr, "by      %s, %s, seed %llu\n", strategy,
            options->strategy == DECODE_AR ? "a step for each token" : steps,
            (unsigned long long)options->seed);
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

/* ---- JSON. ---- */

static json_t *json_tokens(const DecodeResult *result, const Tokenizer *tokenizer) {
    json_t *list = json_array();
    for (int i = 0; i < result->length; i++)
        json_array_append_new(list,
                              json_pack("{s:i, s:o, s:o}", "id", (int)result->tokens[i], "piece",
                                        json_text(tokenizer_piece(tokenizer, result->tokens[i])),
                                        "score", json_score(result->scores[i])));
    return list;
}

static int json_hypotheses(json_t *list, const Answers *answers, const Answer *answer,
                           const Tokenizer *tokenizer, Error *err) {
    for (int i = answer->first; i < answer->first + answer->count; i++) {
        const DecodeResult *r = &answers->results[i];
        char *text;
        TRY(tokenizer_decode(tokenizer, r->tokens, (size_t)r->length, &text, err));
        json_array_append_new(list, json_pack("{s:o, s:i, s:i, s:o, s:i}", "text", json_text(text),
                                              "length", r->length, "sample",
                                              answers->specs[i].sample, "score",
                                              json_score(r->score), "evaluations", r->evaluations));
        free(text);
    }
    return 0;
}

static json_t *json_asked(const Asked *asked) {
    json_t *object = json_object();
    if (asked->line) json_object_set_new(object, "line", json_integer(asked->line));
    if (asked->image) json_object_set_new(object, "image", json_text(asked->image));
    json_object_set_new(object, asked->text_key, json_text(asked->text));
    return object;
}

static void json_dropped(json_t *object, const Answer *answer) {
    if (object && answer->dropped_tokens)
        json_object_set_new(object, "dropped_tokens", json_integer(answer->dropped_tokens));
}

/* The whole trace (trace.h) as JSON. */
static int report_trace(const Asked *asked, const Answers *answers, int index,
                        const Tokenizer *tokenizer, const DecodeOptions *options, Error *err) {
    Trace trace;
    TraceAbout about = {.image = asked->image,
                        .question = asked->text,
                        .is_prompt = !strcmp(asked->text_key, "prompt"),
                        .options = options};
    TRY(trace_from_answers(&trace, &about, answers, index, tokenizer, err));
    json_t *object = trace_json(&trace);
    if (object && asked->line) json_object_set_new(object, "line", json_integer(asked->line));
    json_dropped(object, &answers->items[index]);
    trace_free(&trace);
    return json_print_line(object, JSON_DIGITS, err);
}

int report_json(const Asked *asked, const Answers *answers, int index, const Tokenizer *tokenizer,
                const DecodeOptions *options, bool trace, Error *err) {
    if (trace) return report_trace(asked, answers, index, tokenizer, options, err);
    const Answer *answer = &answers->items[index];
    const DecodeResult *best = &answers->results[answer->best];
    int evaluations = 0;
    for (int i = answer->first; i < answer->first + answer->count; i++)
        evaluations += answers->results[i].evaluations;
    char strategy[128];
    decode_strategy_name(strategy, sizeof strategy, options);
    json_t *object = json_asked(asked), *hypotheses = json_array();
    json_object_set_new(object, "answer", json_text(answer->text));
    json_object_set_new(object, "score", json_score(best->score));
    json_object_set_new(object, "length", json_integer(best->length));
    json_object_set_new(object, "tokens", json_tokens(best, tokenizer));
    json_object_set_new(object, "steps", json_integer(best->steps));
    json_object_set_new(object, "evaluations", json_integer(evaluations));
    json_object_set_new(object, "strategy", json_string(strategy));
    json_object_set_new(object, "seed", json_integer((json_int_t)options->seed));
    json_object_set_new(object, "prompt_tokens", json_integer(answer->prompt_tokens));
    json_dropped(object, answer);
    json_object_set(object, "hypotheses", hypotheses);
    int status = json_hypotheses(hypotheses, answers, answer, tokenizer, err);
    json_decref(hypotheses);
    if (status) {
        json_decref(object);
        return -1;
    }
    return json_print_line(object, JSON_DIGITS, err);
}

int report_json_none(const Asked *asked, const char *error, Error *err) {
    json_t *object = json_asked(asked);
    if (error)
        json_object_set_new(object, "error", json_text(error));
    else
        json_object_set_new(object, "answer", json_string(""));
    return json_print_line(object, JSON_DIGITS, err);
}
