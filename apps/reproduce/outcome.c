#include "apps/reproduce/outcome.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/files/json_read.h"

enum { DEPTH_MOST = 16, TEXT_MOST = 256 << 20, TREE_MOST = 1 << 30 };

/* A path of members and indices, split at its slashes. */
typedef struct Way {
    char text[256];
    const char *names[DEPTH_MOST];
    int count;
} Way;

static int split_way(Way *way, const char *path, Error *err) {
    *way = (Way){.count = 0};
    if (snprintf(way->text, sizeof way->text, "%s", path) >= (int)sizeof way->text)
        return error_set(err, "\"value\" %s: too long", path);
    char *state = NULL;
    for (char *name = strtok_r(way->text, "/", &state); name; name = strtok_r(NULL, "/", &state)) {
        if (way->count == DEPTH_MOST) return error_set(err, "\"value\" %s: too deep", path);
        way->names[way->count++] = name;
    }
    return way->count ? 0 : error_set(err, "\"value\" %s: empty", path);
}

static const json_t *step_into(const json_t *value, const char *name) {
    char *end;
    if (!json_is_array(value)) return json_object_get(value, name);
    const unsigned long index = strtoul(name, &end, 10);
    return *end ? NULL : json_array_get(value, index);
}

/* What the first `depth` names lead to; NULL. */
static const json_t *follow(const json_t *root, const Way *way, int depth) {
    for (int i = 0; i < depth && root; i++) root = step_into(root, way->names[i]);
    return root;
}

static double number_at(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void read_interval(const json_t *root, const Way *way, Outcome *o) {
    const char *name = way->names[way->count - 1];
    char error[300];
    const json_t *beside = follow(root, way, way->count - 1);
    const json_t *interval = NULL;
    for (int up = 1; up <= 2 && up <= way->count && !interval; up++)
        interval = json_object_get(
            json_object_get(follow(root, way, way->count - up), "confidence"), name);
    if (!interval && !strcmp(name, "value")) interval = beside;
    o->low = number_at(interval, "low");
    o->high = number_at(interval, "high");
    snprintf(error, sizeof error, "%s_error", name);
    const double deviation = number_at(beside, error);
    if (!isnan(o->low) || isnan(deviation)) return;
    o->low = o->value - 1.96 * deviation;
    o->high = o->value + 1.96 * deviation;
}

/* Of a share of `of` that are counted: Wilson's interval, which has a width even where all or none are. */
static void share_interval(double of, Outcome *o) {
    const double z = 1.96, p = o->value;
    if (!isnan(o->low) || of < 1 || p < 0 || p > 1) return;
    const double middle = (p + z * z / (2 * of)) / (1 + z * z / of);
    const double half = z * sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / (1 + z * z / of);
    o->low = middle - half, o->high = middle + half;
}

int outcome_read(const Plan *p, const PlanCell *cell, const StepRecord *records, Outcome *o,
                 Error *err) {
    Way way;
    json_t *root;
    *o = (Outcome){NAN, NAN, NAN, cell->why};
    if (cell->step < 0) return 0;
    const StepRecord *record = &records[cell->step];
    if (record->state != STEP_DONE) {
        o->why = record->state == STEP_FAILED    ? "its command failed"
                 : record->state == STEP_BLOCKED ? "a command before it failed"
                                                 : "not run yet";
        return 0;
    }
    const char *path = p->steps[cell->step].result;
    TRY(split_way(&way, cell->value, err));
    TRY(json_read_file(&root, path, TEXT_MOST, 0, TREE_MOST, err));
    const json_t *value = follow(root, &way, way.count), *of = NULL;
    int status = 0;
    Way way_of;
    if (cell->of) status = split_way(&way_of, cell->of, err);
    if (cell->of && status == 0) of = follow(root, &way_of, way_of.count);
    const double divisor = json_is_number(of) ? json_number_value(of) : cell->of ? 0 : 1;
    if (status == 0 && json_is_number(value) && divisor == 0) {
        o->why = "the command counted none";
        json_decref(root);
        return 0;
    }
    if (status == 0 && json_is_number(value)) {
        o->value = json_number_value(value) / divisor;
        read_interval(root, &way, o);
        if (cell->of) share_interval(divisor, o);
        o->value *= cell->scale, o->low *= cell->scale, o->high *= cell->scale;
    } else if (status == 0 && (!value || json_is_null(value)) &&
               json_is_object(follow(root, &way, way.count - 1))) {
        o->why = "its command gave no number";
    } else if (status == 0) {
        status = error_set(err, "%s: has no number at \"%s\", which %s reads", path, cell->value,
                           p->name);
    }
    json_decref(root);
    return status;
}
