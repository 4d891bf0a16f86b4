#include "apps/reproduce/plan.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apps/cli/places.h"
#include "apps/reproduce/expand.h"
#include "data/checkpoints/config.h"
#include "data/files/path.h"
#include "kernels/nearest_word.h"

static const char ending[] = ".json";

/* ---- Files of tables. ---- */

static char *tables_folder(Error *err) {
    char *folder = place_find("reproduce", "reproduce", "");
    if (!folder)
        error_set(err,
                  "the tables are not installed with this program (share/easyfirst/reproduce)");
    return folder;
}

static int is_table(const struct dirent *entry) {
    const size_t size = strlen(entry->d_name), end = sizeof ending - 1;
    return entry->d_name[0] != '.' && size > end && !strcmp(entry->d_name + size - end, ending);
}

char **plan_names(Error *err) {
    struct dirent **entries;
    char *folder = tables_folder(err), **names = NULL;
    const int count = folder ? scandir(folder, &entries, is_table, alphasort) : -1;
    if (folder && count < 0) error_set(err, "%s: cannot be read: %s", folder, strerror(errno));
    free(folder);
    if (count < 0) return NULL;
    names = calloc((size_t)count + 1, sizeof *names);
    for (int i = 0; i < count; i++) {
        const size_t size = strlen(entries[i]->d_name) - (sizeof ending - 1);
        if (names) names[i] = strndup(entries[i]->d_name, size);
        free(entries[i]);
    }
    free(entries);
    if (!names) error_set(err, "out of memory for the tables' names");
    return names;
}

void plan_names_free(char **names) {
    for (char **name = names; name && *name; name++) free(*name);
    free(names);
}

static int no_table(const char *name, char **names, Error *err) {
    const char *near = nearest_word(name, (const char *const *)names);
    return error_set(err, "there is no table \"%s\"%s%s%s; easyfirst reproduce list lists them",
                     name, near ? ": did you mean " : "", near ? near : "", near ? "?" : "");
}

/* The table's JSON and the path that messages call it by. */
static int read_table(const char *name, json_t **table, char **path, Error *err) {
    char **names = plan_names(err), *folder = names ? tables_folder(err) : NULL;
    int status = names && folder ? no_table(name, names, err) : -1;
    for (char **n = names; folder && n && *n; n++)
        if (!strcmp(*n, name)) status = 0;
    *path = status ? NULL : path_format(err, "%s/%s%s", folder, name, ending);
    plan_names_free(names);
    free(folder);
    if (!*path) return -1;
    return config_read(table, *path, err);
}

char *plan_title(const char *name, Error *err) {
    json_t *table = NULL;
    char *path, *title = NULL;
    const char *text, *source;
    if (read_table(name, &table, &path, err) == 0 &&
        config_text(table, "title", path, "", &text, err) == 0 &&
        config_text(table, "source", path, "", &source, err) == 0)
        title = path_format(err, "%s; %s", text, source);
    json_decref(table);
    free(path);
    return title;
}

/* ---- Members. ---- */

static int known_members(const json_t *object, const char *const *known, const char *path,
                         const char *what, Error *err) {
    const char *name;
    json_t *value;
    if (!json_is_object(object)) return error_set(err, "%s: %s is not an object", path, what);
    json_object_foreach((json_t *)object, name, value) {
        int i = 0;
        while (known[i] && strcmp(known[i], name)) i++;
        if (!known[i]) return error_set(err, "%s: unknown key \"%.100s\" in %s", path, name, what);
    }
    return 0;
}

static int needed_text(const json_t *object, const char *name, const char *path, const char *what,
                       const char **text, Error *err) {
    TRY(config_text(object, name, path, NULL, text, err));
    return *text && **text ? 0 : error_set(err, "%s: %s has no \"%s\"", path, what, name);
}

/* What a reading of a table passes along. */
typedef struct Reading {
    Plan *plan;
    const char *path; /* of the file that is being read */
    Expansion expansion;
} Reading;

/* A text of a member, expanded; the caller's to free. NULL with a message. */
static char *expanded(Reading *r, const json_t *value, Error *err) {
    if (!json_is_string(value)) {
        error_set(err, "%s: a text is expected in a step or file, found another kind of value",
                  r->path);
        return NULL;
    }
    char *text = expand_text(&r->expansion, json_string_value(value), err);
    if (!text) error_context(err, "%s", r->path);
    return text;
}

/* ---- Files and steps. ---- */

static int find_file(const Plan *p, const char *id, const char *path_in) {
    for (int i = 0; i < p->file_count; i++)
        if (!strcmp(p->files[i].id, id) && !strcmp(p->files[i].path, path_in)) return i;
    return -1;
}

/* Number of a member that is one for all sizes, or an object by size; NaN where there is none. */
static double sized_number(const json_t *value, const char *size) {
    if (json_is_object(value)) value = json_object_get(value, size);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static int add_file(Reading *r, const json_t *files, const char *id, int *index, Error *err) {
    static const char *const known[] = {
        "path", "what", "from", "model", "parameters", "length_predictor", NULL};
    const json_t *file = json_object_get(files, id);
    if (!file)
        return error_set(err, "%s: a step needs the file \"%s\", which is not listed", r->path, id);
    TRY(known_members(file, known, r->path, id, err));
    char *relative = expanded(r, json_object_get(file, "path"), err);
    char *path = relative ? path_join(r->plan->options.files, relative, err) : NULL;
    free(relative);
    if (!path) return -1;
    *index = find_file(r->plan, id, path);
    if (*index >= 0) {
        free(path);
        return 0;
    }
    Plan *p = r->plan;
    PlanFile *grown = realloc(p->files, ((size_t)p->file_count + 1) * sizeof *grown);
    if (!grown) return free(path), error_set(err, "out of memory for a table's files");
    p->files = grown;
    *index = p->file_count++;
    PlanFile *f = &p->files[*index];
    const double parameters =
        sized_number(json_object_get(file, "parameters"), expand_size(&r->expansion));
    *f = (PlanFile){.id = strdup(id),
                    .path = path,
                    .model = json_is_true(json_object_get(file, "model")),
                    .length_predictor = json_is_true(json_object_get(file, "length_predictor")),
                    .parameters = isnan(parameters) ? 0 : parameters,
                    .what = expanded(r, json_object_get(file, "what"), err)};
    if (f->what) f->from = expanded(r, json_object_get(file, "from"), err);
    return f->id && f->what && f->from ? 0 : -1;
}

static int find_step(const Plan *p, const char *name) {
    for (int i = 0; i < p->step_count; i++)
        if (!strcmp(p->steps[i].name, name)) return i;
    return -1;
}

/* The words of the command, and those of a trial's shorter ones. */
static int step_words(Reading *r, PlanStep *s, const json_t *run, Error *err) {
    const PlanOptions *o = &r->plan->options;
    const size_t count = json_array_size(run);
    if (!count)
        return error_set(err, "%s: the step %s has no command in \"run\"", r->path, s->name);
    s->words = calloc(count + 3, sizeof *s->words);
    if (!s->words) return error_set(err, "out of memory for a command");
    for (size_t i = 0; i < count; i++) {
        char *word = expanded(r, json_array_get(run, i), err);
        if (!word) return -1;
        s->words[s->word_count++] = word;
    }
    if (s->program) return 0;
    const bool eval = !strcmp(s->words[0], "eval"), train = !strcmp(s->words[0], "train");
    const int number = eval ? o->limit : train ? o->steps : 0;
    if (number <= 0) return 0;
    char *option = strdup(eval ? "--limit" : "--steps"), *text = path_format(err, "%d", number);
    if (option) s->words[s->word_count++] = option;
    if (text) s->words[s->word_count++] = text;
    return option && text ? 0 : error_set(err, "out of memory for a command");
}

static int step_result(Reading *r, PlanStep *s, const json_t *step, Error *err) {
    const char *result;
    const char *out = r->plan->options.out;
    TRY(config_text(step, "result", r->path, "result.json", &result, err));
    s->result = !strcmp(result, "stdout") ? path_format(err, "%s/steps/%s.out", out, s->name)
                                          : path_format(err, "%s/runs/%s/%s", out, s->name, result);
    return s->result ? 0 : -1;
}

/* Indices of what a step names in "after" and "files". */
static int step_needs(Reading *r, PlanStep *s, const json_t *step, const json_t *files,
                      Error *err) {
    const json_t *after = json_object_get(step, "after"), *needs = json_object_get(step, "files");
    s->after = calloc(json_array_size(after) + 1, sizeof *s->after);
    s->files = calloc(json_array_size(needs) + 1, sizeof *s->files);
    if (!s->after || !s->files) return error_set(err, "out of memory for a step");
    for (size_t i = 0; i < json_array_size(after); i++) {
        char *name = expanded(r, json_array_get(after, i), err);
        if (!name) return -1;
        const int index = find_step(r->plan, name);
        if (index < 0)
            error_set(err, "%s: the step %s is after %s, which is not before it in the list",
                      r->path, s->name, name);
        free(name);
        if (index < 0) return -1;
        s->after[s->after_count++] = index;
    }
    for (size_t i = 0; i < json_array_size(needs); i++) {
        const char *id = json_string_value(json_array_get(needs, i));
        if (!id) return error_set(err, "%s: \"files\" of %s: not texts", r->path, s->name);
        TRY(add_file(r, files, id, &s->files[s->file_count], err));
        s->file_count++;
    }
    return 0;
}

static int add_step(Reading *r, const json_t *step, const json_t *files, Error *err) {
    static const char *const known[] = {"name", "run", "after", "files", "result", "program", NULL};
    Plan *p = r->plan;
    const char *program;
    TRY(known_members(step, known, r->path, "a step", err));
    char *name = expanded(r, json_object_get(step, "name"), err);
    if (!name) return -1;
    if (find_step(p, name) >= 0) { /* one for all sizes */
        free(name);
        return 0;
    }
    PlanStep *grown = realloc(p->steps, ((size_t)p->step_count + 1) * sizeof *grown);
    if (!grown) return free(name), error_set(err, "out of memory for a table's steps");
    p->steps = grown;
    PlanStep s = {.name = name};
    int status = config_text(step, "program", r->path, NULL, &program, err);
    if (status == 0 && program && !(s.program = strdup(program)))
        status = error_set(err, "out of memory for a step");
    if (status == 0) status = step_words(r, &s, json_object_get(step, "run"), err);
    if (status == 0) status = step_result(r, &s, step, err);
    if (status == 0) status = step_needs(r, &s, step, files, err);
    p->steps[p->step_count++] = s;
    return status;
}

/* ---- Forms. ---- */

/* Whether a list of names (NULL: any) has `size`. */
static bool sizes_have(const json_t *sizes, const char *size) {
    for (size_t i = 0; i < json_array_size(sizes); i++)
        if (!strcmp(json_string_value(json_array_get(sizes, i)), size)) return true;
    return !sizes;
}

static bool text_has(const char *list, const char *size) {
    const size_t length = strlen(size);
    for (const char *at = list; at && *at; at += strcspn(at, ","), at += *at == ',')
        if (strcspn(at, ",") == length && !strncmp(at, size, length)) return true;
    return !list;
}

static int check_form(const json_t *form, const char *path, Error *err) {
    static const char *const known[] = {"about", "use", "sizes", "vars", "files", "steps", NULL};
    TRY(known_members(form, known, path, "a form (\"full\" or \"small\")", err));
    return 0;
}

static int read_steps(Reading *r, const char *name, const char *size, int depth, Error *err) {
    json_t *table = NULL;
    char *path = NULL;
    if (depth > 4) return error_set(err, "%s: \"use\" goes in a circle", name);
    int status = read_table(name, &table, &path, err);
    const json_t *form = json_object_get(table, r->plan->options.small ? "small" : "full");
    const char *use = NULL;
    if (status == 0) status = check_form(form, path, err);
    if (status == 0) status = config_text(form, "use", path, NULL, &use, err);
    if (status == 0 && use) status = read_steps(r, use, size, depth + 1, err);
    r->path = path;
    r->expansion.vars = json_object_get(form, "vars");
    const json_t *steps = json_object_get(form, "steps");
    for (size_t i = 0; i < json_array_size(steps) && status == 0; i++)
        status = add_step(r, json_array_get(steps, i), json_object_get(form, "files"), err);
    json_decref(table);
    free(path);
    return status;
}

/* ---- Rows. ---- */

static int add_cell(Plan *p, PlanCell cell, Error *err) {
    PlanCell *grown = realloc(p->cells, ((size_t)p->cell_count + 1) * sizeof *grown);
    if (!grown) return error_set(err, "out of memory for a table's rows");
    p->cells = grown;
    p->cells[p->cell_count++] = cell;
    return 0;
}

static int cell_step(Reading *r, const json_t *form, PlanCell *cell, Error *err) {
    const char *name;
    TRY(config_text(form, "why", r->path, NULL, &cell->why, err));
    TRY(config_text(form, "step", r->path, NULL, &name, err));
    if (!name == !cell->why)
        return error_set(err, "%s: the row \"%s\" needs either \"step\" or \"why\"", r->path,
                         cell->label);
    cell->step = -1;
    if (!name) return 0;
    char *step = expand_text(&r->expansion, name, err);
    if (!step) return -1;
    cell->step = find_step(r->plan, step);
    if (cell->step < 0)
        error_set(err, "%s: the row \"%s\" reads the step %s, which does not exist", r->path,
                  cell->label, step);
    free(step);
    if (cell->step >= 0 && !cell->value)
        return error_set(err, "%s: the row \"%s\" has no \"value\"", r->path, cell->label);
    return cell->step < 0 ? -1 : 0;
}

static int add_row(Reading *r, const json_t *row, const char *size, Error *err) {
    static const char *const known[] = {"label", "metric", "value", "of",    "scale",
                                        "paper", "sizes",  "full",  "small", NULL};
    static const char *const known_form[] = {"label", "step", "why", "value", "of", "scale", NULL};
    const json_t *form = json_object_get(row, r->plan->options.small ? "small" : "full");
    PlanCell cell = {.size = size};
    TRY(known_members(row, known, r->path, "a row", err));
    TRY(needed_text(row, "label", r->path, "a row", &cell.label, err));
    cell.row = cell.label, cell.of_size = size;
    TRY(needed_text(row, "metric", r->path, cell.label, &cell.metric, err));
    if (!form) return error_set(err, "%s: the row \"%s\" lacks a form", r->path, cell.label);
    if (json_is_null(form)) return 0;
    TRY(known_members(form, known_form, r->path, cell.label, err));
    TRY(config_text(form, "label", r->path, cell.label, &cell.label, err));
    const json_t *sizes = json_object_get(row, "sizes");
    if (sizes && !sizes_have(sizes, size)) return 0;
    TRY(config_text(row, "value", r->path, NULL, &cell.value, err));
    TRY(config_text(form, "value", r->path, cell.value, &cell.value, err));
    TRY(config_text(row, "of", r->path, NULL, &cell.of, err));
    TRY(config_text(form, "of", r->path, cell.of, &cell.of, err));
    TRY(config_real(row, "scale", r->path, 1, &cell.scale, err));
    TRY(config_real(form, "scale", r->path, cell.scale, &cell.scale, err));
    cell.paper = sized_number(json_object_get(row, "paper"), size);
    if (json_array_size(sizes) == 1 || json_object_get(form, "label"))
        cell.size = ""; /* the label says it */
    TRY(cell_step(r, form, &cell, err));
    return add_cell(r->plan, cell, err);
}

/* Rows in their order, each with all its sizes. */
static int read_rows(Reading *r, const json_t *table, const json_t *sizes, Error *err) {
    const json_t *rows = json_object_get(table, "rows");
    const json_t *form = json_object_get(table, r->plan->options.small ? "small" : "full");
    if (!json_array_size(rows)) return error_set(err, "%s: has no rows", r->path);
    for (size_t i = 0; i < json_array_size(rows); i++)
        for (size_t s = 0; s < json_array_size(sizes); s++) {
            const char *size = json_string_value(json_array_get(sizes, s));
            if (!text_has(r->plan->options.sizes, size) ||
                !sizes_have(json_object_get(form, "sizes"), size))
                continue;
            r->expansion.size = size;
            r->expansion.vars = json_object_get(form, "vars");
            TRY(add_row(r, json_array_get(rows, i), size, err));
        }
    return 0;
}

static bool rows_have(const json_t *rows, const char *label) {
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(rows, i), "label"));
        if (name && !strcmp(name, label)) return true;
    }
    return false;
}

static int read_claims(Plan *p, const json_t *table, const char *path, Error *err) {
    static const char *const known[] = {"text", "greater", "less", NULL};
    const char *text, *row;
    p->claims = json_object_get(table, "claims");
    if (p->claims && !json_is_array(p->claims))
        return error_set(err, "%s: \"claims\" is not an array", path);
    for (size_t i = 0; i < json_array_size(p->claims); i++) {
        const json_t *claim = json_array_get(p->claims, i);
        TRY(known_members(claim, known, path, "a claim", err));
        TRY(needed_text(claim, "text", path, "a claim", &text, err));
        for (int side = 1; side < 3; side++) {
            TRY(needed_text(claim, known[side], path, text, &row, err));
            if (!rows_have(json_object_get(table, "rows"), row))
                return error_set(err,
                                 "%s: the claim \"%s\" is of the row \"%s\", which does not exist",
                                 path, text, row);
        }
    }
    return 0;
}

static void mark_needed(Plan *p, int step) {
    PlanStep *s = &p->steps[step];
    if (s->needed) return;
    s->needed = true;
    for (int i = 0; i < s->after_count; i++) mark_needed(p, s->after[i]);
}

static int check_sizes(const Plan *p, const json_t *sizes, const char *path, Error *err) {
    for (size_t i = 0; i < json_array_size(sizes); i++)
        if (!json_is_string(json_array_get(sizes, i)))
            return error_set(err, "%s: \"sizes\" are not texts", path);
    for (const char *at = p->options.sizes; at && *at; at += strcspn(at, ","), at += *at == ',') {
        char size[64];
        snprintf(size, sizeof size, "%.*s", (int)strcspn(at, ","), at);
        char *names = json_dumps(sizes, JSON_COMPACT);
        const bool known = sizes_have(sizes, size);
        if (!known)
            error_set(err, "--size \"%s\": %s has the sizes %s", size, p->name,
                      names ? names : "?");
        free(names);
        if (!known) return -1;
    }
    return 0;
}

static int read_plan(Reading *r, const json_t *table, Error *err) {
    static const char *const known[] = {"title", "source", "note",  "sizes",  "plot",
                                        "rows",  "full",   "small", "claims", NULL};
    Plan *p = r->plan;
    const char *path = r->path;
    json_t *sizes = json_object_get(table, "sizes");
    TRY(known_members(table, known, path, "a table", err));
    TRY(needed_text(table, "title", path, "the table", &p->title, err));
    TRY(needed_text(table, "source", path, "the table", &p->source, err));
    TRY(config_text(table, "note", path, NULL, &p->note, err));
    TRY(config_flag(table, "plot", path, false, &p->plot, err));
    const json_t *form = json_object_get(table, p->options.small ? "small" : "full");
    TRY(check_form(form, path, err));
    TRY(needed_text(form, "about", path, "a form", &p->about, err));
    json_t *none = json_pack("[s]", "");
    json_object_set_new(p->texts, " no sizes", none);
    if (!sizes) sizes = none;
    TRY(check_sizes(p, sizes, path, err));
    for (size_t s = 0; s < json_array_size(sizes); s++) {
        r->expansion.size = json_string_value(json_array_get(sizes, s));
        if (!text_has(p->options.sizes, r->expansion.size) ||
            !sizes_have(json_object_get(form, "sizes"), r->expansion.size))
            continue;
        TRY(read_steps(r, p->name, r->expansion.size, 0, err));
    }
    r->path = path;
    TRY(read_rows(r, table, sizes, err));
    TRY(read_claims(p, table, path, err));
    for (int i = 0; i < p->cell_count; i++)
        if (p->cells[i].step >= 0) mark_needed(p, p->cells[i].step);
    return 0;
}

int plan_read(Plan *p, const char *name, const PlanOptions *options, Error *err) {
    json_t *table = NULL;
    char *path = NULL, *runs = NULL;
    *p = (Plan){.name = name, .options = *options, .texts = json_object()};
    if (!p->texts) return error_set(err, "out of memory for a table");
    TRY(read_table(name, &table, &path, err) ? (free(path), -1) : 0);
    json_object_set_new(p->texts, name, table);
    runs = path_join(options->out, "runs", err);
    Reading r = {.plan = p, .path = path};
    int status = runs ? expansion_places(&r.expansion, runs, options->files, err) : -1;
    if (status == 0) status = read_plan(&r, table, err);
    expansion_free(&r.expansion);
    free(runs);
    free(path);
    return status;
}

void plan_free(Plan *p) {
    for (int i = 0; i < p->file_count; i++) {
        PlanFile *f = &p->files[i];
        free(f->id), free(f->path), free(f->what), free(f->from);
    }
    for (int i = 0; i < p->step_count; i++) {
        PlanStep *s = &p->steps[i];
        for (int w = 0; w < s->word_count; w++) free(s->words[w]);
        free(s->words), free(s->name), free(s->program), free(s->result);
        free(s->after), free(s->files);
    }
    free(p->files), free(p->steps), free(p->cells);
    json_decref(p->texts);
    *p = (Plan){0};
}
