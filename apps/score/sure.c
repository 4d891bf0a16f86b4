#include "apps/score/sure.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A number that is not finite is null. */
static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *interval_json(const Interval *i) {
    return json_pack("{s:o, s:o, s:o, s:o}", "mean", number(i->mean), "half_width",
                     number(interval_half(i)), "low", number(i->low), "high", number(i->high));
}

json_t *paired_json(const Paired *p) {
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:f, s:f}", "baseline", number(p->scores[0]),
                     "system", number(p->scores[1]), "difference",
                     number(p->scores[1] - p->scores[0]), "low", number(p->difference.low), "high",
                     number(p->difference.high), "p_bootstrap", p->p_bootstrap, "p_randomization",
                     p->p_random);
}

/* Puts a member into the object `group` of the result, which is made. */
static int put_member(json_t *result, const char *group, const char *name, json_t *value,
                      Error *err) {
    json_t *object = json_object_get(result, group);
    if (!object) {
        json_object_set_new(result, group, json_object());
        object = json_object_get(result, group);
    }
    return json_object_set_new(object, name, value) ? error_set(err, "out of memory for the result")
                                                    : 0;
}

int sure_resample(Sure *s, const char *name, const LineStats *first, const LineStats *second,
                  Error *err) {
    Paired *p = &s->paired;
    if (s->baseline)
        TRY(resample_pair(first, second, 1, &s->options, p, err));
    else
        TRY(resample_interval(second, 1, &s->options, &p->intervals[1], err));
    s->known = true;
    if (!s->result) return 0;
    TRY(put_member(s->result, "confidence", name, interval_json(&p->intervals[1]), err));
    return s->baseline ? put_member(s->result, "paired", name, paired_json(p), err) : 0;
}

static int sample_count(const Sure *s) {
    return s->options.samples ? s->options.samples : RESAMPLE_SAMPLES;
}

static void print_interval(const Interval *i) {
    printf("μ = %.2f ± %.2f", i->mean, interval_half(i));
}

static void print_baseline(const Sure *s) {
    const Paired *p = &s->paired;
    if (!s->known || !s->baseline) return;
    printf("  baseline = %.2f (", p->scores[0]);
    print_interval(&p->intervals[0]);
    printf("), difference = %+.2f (95 %%: %+.2f to %+.2f), p = %.4f (bootstrap), p = %.4f "
           "(randomization)\n",
           p->scores[1] - p->scores[0], p->difference.low, p->difference.high, p->p_bootstrap,
           p->p_random);
}

void sure_print_corpus(const Sure *s, const char *name, const char *signature, const char *line) {
    if (!s->known) {
        printf("%s|%s%s\n", name, signature, line);
        return;
    }
    const unsigned long long seed = s->options.seed ? s->options.seed : RESAMPLE_SEED;
    const int references = (int)strcspn(signature, "|");
    const int score = (int)(strlen(" = ") + strcspn(line + strlen(" = "), " "));
    printf("%s|%.*s|bs:%d|seed:%llu%s%.*s (", name, references, signature, sample_count(s), seed,
           signature + references, score, line);
    print_interval(&s->paired.intervals[1]);
    printf(")%s\n", line + score);
    print_baseline(s);
}

void sure_print_end(const Sure *s) {
    if (s->known) {
        fputs("; ", stdout);
        print_interval(&s->paired.intervals[1]);
    }
    fputs(")\n", stdout);
    print_baseline(s);
}
