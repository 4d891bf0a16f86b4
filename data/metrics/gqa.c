#include "data/metrics/gqa.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/files/array_grow.h"
#include "data/sets/gqa.h"
#include "data/sets/gqa_answers.h"
#include "data/sets/gqa_file.h"
#include "data/metrics/gqa_state.h"
#include "data/metrics/gqa_text.h"

/* ---- Reading predictions and questions. ---- */

/* The number of an id; its state exists afterwards. */
static int find_id(GqaState *s, const char *id, int32_t *number, Error *err) {
    bool fresh;
    TRY(text_table_add(&s->ids, id, number, &fresh, err));
    if (!fresh) return 0;
    if ((size_t)*number >= s->state_capacity) {
        GqaIdState *grown = array_grow(s->states, &s->state_capacity, sizeof *grown);
        if (!grown) return error_set(err, "out of memory for %zu questions", s->ids.count);
        s->states = grown;
    }
    s->states[*number] = (GqaIdState){.prediction = -1, .gold = -1, .scored = -1};
    return 0;
}

static int add_number(GqaNumbers *numbers, int32_t number, Error *err) {
    if (numbers->count == numbers->capacity) {
        int32_t *grown = array_grow(numbers->items, &numbers->capacity, sizeof *grown);
        if (!grown)
            return error_set(err, "out of memory for what %zu questions name", numbers->count);
        numbers->items = grown;
    }
    numbers->items[numbers->count++] = number;
    return 0;
}

/* The number of a text, or -1 for none. */
static int name_of(TextTable *table, const char *text, int32_t *number, Error *err) {
    *number = -1;
    return text ? text_table_add(table, text, number, NULL, err) : 0;
}

static int take_prediction(void *user, const char *id, const char *text, bool llava, Error *err) {
    GqaState *s = user;
    int32_t number;
    TRY(find_id(s, id, &number, err));
    GqaIdState *state = &s->states[number];
    if (state->prediction >= 0)
        skipped_add(&s->score->skipped, "question that was answered twice",
                    "%.150s: question %.80s: the last answer counts", s->files->predictions, id);
    else
        s->score->predictions++;
    char *plain = llava ? gqa_prediction_plain(text) : strdup(text);
    int status = plain ? text_table_add(&s->answers, plain, &state->prediction, NULL, err)
                       : error_set(err, "out of memory for the answer to question %s", id);
    free(plain);
    return status;
}

/* Stores what scoring needs of a balanced question. */
static int fill_scored(GqaState *s, GqaScored *to, const GqaQuestion *q, Error *err) {
    int32_t id = to->id, number;
    *to = (GqaScored){.id = id,
                      .live = true,
                      .words = q->text ? gqa_words(q->text, q->llava) : -1,
                      .steps = q->steps,
                      .common = q->detailed && strstr(q->detailed, "Common"),
                      .scene = q->scene,
                      .valid = GQA_UNKNOWN,
                      .plausible = GQA_UNKNOWN,
                      .entailed = NAN,
                      .first_entailed = s->entailed.count,
                      .first_region = s->regions.count};
    if (q->text && to->words < 0) return error_set(err, "out of memory for question %s", q->id);
    TRY(name_of(&s->names, q->structural, &to->structural, err));
    TRY(name_of(&s->names, q->semantic, &to->semantic, err));
    TRY(name_of(&s->names, q->detailed, &to->detailed, err));
    TRY(name_of(&s->names, q->group, &to->group, err));
    TRY(name_of(&s->images, q->image_id, &to->image, err));
    for (int i = 0; i < q->entailed_count; i++) {
        TRY(find_id(s, q->entailed[i], &number, err));
        if (number == id) continue; /* every question entails itself */
        TRY(add_number(&s->entailed, number, err));
        to->entailed_count++;
    }
    if (!s->files->attentions || !s->files->scene_graphs) return 0;
    for (int i = 0; i < q->region_count; i++) {
        TRY(text_table_add(&s->objects, q->regions[i], &number, NULL, err));
        TRY(add_number(&s->regions, number, err));
        to->region_count++;
    }
    return 0;
}

static int add_scored(GqaState *s, int32_t id, const GqaQuestion *q, Error *err) {
    int32_t index = s->states[id].scored;
    if (index < 0) {
        if (s->scored_count == INT32_MAX) return error_set(err, "too many questions");
        if (s->scored_count == s->scored_capacity) {
            GqaScored *grown = array_grow(s->scored, &s->scored_capacity, sizeof *grown);
            if (!grown) return error_set(err, "out of memory for %zu questions", s->scored_count);
            s->scored = grown;
        }
        index = s->states[id].scored = (int32_t)s->scored_count++;
    }
    s->scored[index].id = id;
    return fill_scored(s, &s->scored[index], q, err);
}

static int take_question(void *user, const GqaQuestion *q, Error *err) {
    GqaState *s = user;
    int32_t id, gold;
    TRY(find_id(s, q->id, &id, err));
    TRY(name_of(&s->answers, q->answer, &gold, err));
    GqaIdState *state = &s->states[id];
    bool twice = s->all ? state->in_all : state->known;
    if (twice)
        skipped_add(&s->score->skipped, GQA_TWICE, "%.150s: question %.80s: the last one counts",
                    s->all ? s->files->all_questions : s->files->questions, q->id);
    bool asked = state->known && !state->in_all; /* by the file of questions */
    if (!s->all || !asked) state->gold = gold;
    if (s->all && !asked) state->in_all = true;
    state->known = true;
    if (s->all) return 0;
    if (q->balanced) return add_scored(s, id, q, err);
    if (state->scored >= 0) s->scored[state->scored].live = false;
    return 0;
}

static int read_questions(GqaState *s, Error *err) {
    GqaScore *score = s->score;
    int64_t bad;
    TRY(gqa_questions_walk(s->files->questions, take_question, s, &score->skipped, &bad, err));
    for (size_t i = 0; i < s->scored_count; i++) score->questions += s->scored[i].live;
    if (!score->questions)
        return error_set(err,
                         "%s: none of its questions is balanced (\"isBalanced\": true): "
                         "nothing to score",
                         s->files->questions);
    s->all = true;
    if (s->files->all_questions)
        TRY(gqa_questions_walk(s->files->all_questions, take_question, s, &score->skipped, &bad,
                               err));
    for (size_t i = 0; i < s->ids.count; i++) {
        const GqaIdState *state = &s->states[i];
        bool scored = state->scored >= 0 && s->scored[state->scored].live;
        score->unbalanced += state->known && !scored;
        score->unknown += !state->known && state->prediction >= 0;
    }
    return 0;
}

/* ---- Accuracy, consistency. ---- */

static bool equal_normal(const char *a, const char *b, bool *failed) {
    char *x = gqa_normal(a), *y = gqa_normal(b);
    bool equal = x && y && !strcmp(x, y);
    *failed |= !x || !y;
    free(x), free(y);
    return equal;
}

static int score_accuracy(GqaState *s, Error *err) {
    GqaScore *score = s->score;
    int32_t query = text_table_find(&s->names, "query");
    int64_t right[2] = {0}, count[2] = {0}, all = 0, exact = 0, golds = 0;
    bool failed = false;
    for (size_t i = 0; i < s->scored_count; i++) {
        GqaScored *q = &s->scored[i];
        const GqaIdState *state = &s->states[q->id];
        if (!q->live) continue;
        if (state->prediction < 0) {
            score->unanswered++;
            skipped_add(&score->skipped, "question without a prediction", "%.150s: question %.80s",
                        s->files->predictions, gqa_scored_id(s, q));
        }
        golds += state->gold >= 0;
        all += gqa_right(state);
        if (state->gold >= 0 && state->prediction >= 0)
            q->exact = gqa_right(state) ||
                       equal_normal(text_table_get(&s->answers, state->gold),
                                    text_table_get(&s->answers, state->prediction), &failed);
        exact += q->exact;
        if (q->structural < 0) continue;
        int open = q->structural == query;
        count[open]++;
        right[open] += gqa_right(state);
    }
    if (failed) return error_set(err, "out of memory for comparing answers");
    static const char hidden[] = "the questions have no answers";
    bool types = count[0] + count[1] > 0;
    int64_t any = golds ? score->questions : 0;
    gqa_mean(score, GQA_ACCURACY, (double)all, any, hidden);
    gqa_mean(score, GQA_EXACT_MATCH, (double)exact, any, hidden);
    for (int open = 0; open < 2; open++)
        gqa_mean(score, open ? GQA_OPEN : GQA_BINARY, (double)right[open], golds ? count[open] : 0,
                 !golds   ? hidden
                 : !types ? "the questions have no types"
                          : NULL);
    return 0;
}

/* The share of right answers to the questions that q entails; false if none of them is known. */
static bool entailed_share(GqaState *s, const GqaScored *q, double *share) {
    int64_t right = 0, count = 0;
    for (int32_t i = 0; i < q->entailed_count; i++) {
        int32_t id = s->entailed.items[q->first_entailed + (size_t)i];
        const GqaIdState *state = &s->states[id];
        if (!state->known) {
            skipped_add(&s->score->skipped, "entailed question that does not exist",
                        "question %.80s entails %.80s", gqa_scored_id(s, q),
                        text_table_get(&s->ids, id));
            continue;
        }
        if (state->prediction < 0)
            skipped_add(&s->score->skipped, "entailed question without a prediction",
                        "question %.80s entails %.80s", gqa_scored_id(s, q),
                        text_table_get(&s->ids, id));
        count++;
        right += gqa_right(state);
    }
    if (count) *share = (double)right / (double)count;
    return count > 0;
}

/* Whether one of the questions that are not scored was answered. */
static bool others_answered(const GqaState *s) {
    for (size_t i = 0; i < s->ids.count; i++) {
        const GqaIdState *state = &s->states[i];
        bool scored = state->scored >= 0 && s->scored[state->scored].live;
        if (state->known && !scored && state->prediction >= 0) return true;
    }
    return false;
}

static void score_consistency(GqaState *s) {
    double sum = 0, share = 0;
    int64_t count = 0;
    if (!s->score->metrics[GQA_ACCURACY].present) {
        gqa_absent(s->score, GQA_CONSISTENCY, "the questions have no answers");
        return;
    }
    if (!s->files->all_questions && !s->score->unbalanced) {
        gqa_absent(s->score, GQA_CONSISTENCY, "no file of all questions");
        return;
    }
    if (s->score->unbalanced && !others_answered(s)) {
        gqa_absent(s->score, GQA_CONSISTENCY, "only balanced questions were answered");
        return;
    }
    for (size_t i = 0; i < s->scored_count; i++) {
        GqaScored *q = &s->scored[i];
        if (!q->live || !gqa_right(&s->states[q->id])) continue;
        if (!entailed_share(s, q, &share)) continue;
        q->entailed = share;
        sum += share;
        count++;
    }
    gqa_mean(s->score, GQA_CONSISTENCY, sum, count, NULL);
}

/* ---- Validity, plausibility. ---- */

/* Whether the prediction is among the answers of a list, or GQA_UNKNOWN. If `common`, the official
 * script accepts color, material and shape instead of the list. */
static uint8_t among(GqaState *s, const char *prediction, const JsonElement *element,
                     const char *member, bool common) {
    const json_t *list = json_object_get(element->value, member);
    static const char *const kinds[] = {"color", "material", "shape"};
    const json_t *item;
    size_t i;
    if (!json_is_array(list)) return GQA_UNKNOWN;
    json_array_foreach(list, i, item) {
        if (json_is_string(item)) continue;
        skipped_add(&s->score->skipped, "choice that is not a string",
                    "%.150s: question %.80s: \"%s\"", s->files->choices, element->key, member);
    }
    if (!prediction) return 0;
    for (i = 0; common && i < 3; i++)
        if (!strcmp(prediction, kinds[i])) return 1;
    if (common) return 0;
    json_array_foreach(list, i, item) {
        const char *text = json_string_value(item);
        if (text && strlen(text) == json_string_length(item) && !strcmp(text, prediction)) return 1;
    }
    return 0;
}

static int take_choices(void *user, const JsonElement *element, Error *err) {
    GqaState *s = user;
    int32_t id = text_table_find(&s->ids, element->key);
    (void)err;
    if (id < 0 || s->states[id].scored < 0) return 0;
    GqaScored *q = &s->scored[s->states[id].scored];
    int32_t prediction = s->states[id].prediction;
    const char *text = prediction < 0 ? NULL : text_table_get(&s->answers, prediction);
    if (q->valid != GQA_UNKNOWN)
        skipped_add(&s->score->skipped, "choices that occur twice",
                    "%.150s: question %.80s: the last ones count", s->files->choices, element->key);
    q->valid = among(s, text, element, "valid", q->common);
    q->plausible = among(s, text, element, "plausible", q->common);
    return 0;
}

static int score_choices(GqaState *s, Error *err) {
    int64_t valid = 0, plausible = 0, valid_count = 0, plausible_count = 0;
    static const char none[] = "the file of choices has none of the questions";
    if (!s->files->choices) {
        gqa_absent(s->score, GQA_VALIDITY, "no choices file");
        gqa_absent(s->score, GQA_PLAUSIBILITY, "no choices file");
        return 0;
    }
    TRY(gqa_file_walk(s->files->choices, 1u << GQA_FILE_OBJECT,
                      "{\"id\": {\"valid\": [...], \"plausible\": [...]}}", take_choices, s, err));
    for (size_t i = 0; i < s->scored_count; i++) {
        const GqaScored *q = &s->scored[i];
        if (!q->live) continue;
        if (q->valid == GQA_UNKNOWN || q->plausible == GQA_UNKNOWN)
            skipped_add(&s->score->skipped, "question without choices", "%.150s: question %.80s",
                        s->files->choices, gqa_scored_id(s, q));
        valid += q->valid == 1, valid_count += q->valid != GQA_UNKNOWN;
        plausible += q->plausible == 1, plausible_count += q->plausible != GQA_UNKNOWN;
    }
    gqa_mean(s->score, GQA_VALIDITY, (double)valid, valid_count, none);
    gqa_mean(s->score, GQA_PLAUSIBILITY, (double)plausible, plausible_count, none);
    return 0;
}

/* ---- All. ---- */

static int score_all(GqaState *s, Error *err) {
    const GqaFiles *f = s->files;
    TRY(gqa_predictions_walk(f->predictions, take_prediction, s, &s->score->skipped, err));
    TRY(read_questions(s, err));
    TRY(score_accuracy(s, err));
    score_consistency(s);
    TRY(score_choices(s, err));
    if (f->scene_graphs && f->attentions)
        TRY(gqa_ground(s, err));
    else
        gqa_absent(s->score, GQA_GROUNDING,
                   f->attentions     ? "no scene graphs"
                   : f->scene_graphs ? "no attentions"
                                     : "no attentions and scene graphs");
    TRY(gqa_tabulate(s, err));
    return f->outcomes ? gqa_keep_outcomes(s, err) : 0;
}

int gqa_score(GqaScore *score, const GqaFiles *files, Error *err) {
    *score = (GqaScore){.questions = 0};
    GqaState state = {.files = files, .score = score};
    int status = score_all(&state, err);
    text_table_free(&state.ids), text_table_free(&state.answers), text_table_free(&state.names);
    text_table_free(&state.images), text_table_free(&state.objects);
    free(state.states), free(state.scored), free(state.entailed.items), free(state.regions.items);
    free(state.scenes), free(state.boxes);
    if (status) gqa_score_free(score);
    return status;
}

void gqa_score_free(GqaScore *score) {
    for (int t = 0; t < GQA_TABLES; t++) {
        for (int i = 0; i < score->tables[t].count; i++) free(score->tables[t].rows[i].name);
        free(score->tables[t].rows);
    }
    for (size_t i = 0; i < score->outcome_count; i++) {
        GqaOutcome *o = &score->outcomes[i];
        free(o->id), free(o->structural), free(o->semantic), free(o->detailed);
        free(o->gold), free(o->prediction);
    }
    free(score->outcomes);
    *score = (GqaScore){.questions = 0};
}
