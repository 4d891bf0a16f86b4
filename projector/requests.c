#include "projector/requests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "language/sentencepiece.h"
#include "projector/answer_text.h"

void answer_template_free(Template *template) {
    if (template) template_free(template);
    free(template);
}

int answer_refuse(Answer *a, const Error *why, Error *err) {
    free(a->text), free(a->error);
    answer_template_free(a->template);
    a->template = NULL;
    a->text = NULL, a->count = 0, a->best = -1;
    a->error = strdup(why->text), a->code = a->skipped ? ERROR_SKIPPED : why->code;
    return a->error ? 0 : error_set(err, "out of memory for a message");
}

/* ---- Texts. ---- */

int answer_given_length(const Multimodal *m, const AnswerRequest *r) {
    return r->length > 0 || r->answer_template || m->length ? r->length : m->answer_length;
}

/* What is wrong with a request before its prompt is split into tokens. */
static int check_text(const Multimodal *m, const AnswerRequest *r, Error *why) {
    size_t size = strnlen(r->prompt, (size_t)PROMPT_BYTES + 1);
    if (size > PROMPT_BYTES)
        return error_set_code(why, ERROR_TOO_LONG,
                              "the prompt has more than %d bytes, the most that are looked at (the "
                              "model reads %d tokens): shorten it",
                              PROMPT_BYTES, language_longest(&m->language));
    if (size && strspn(r->prompt, " \t\r\n") == size)
        return error_set(why, "the prompt is empty: there is nothing to answer");
    size_t valid = utf8_valid_prefix(r->prompt, size);
    if (valid < size)
        return error_set(why,
                         "text: byte %zu (0x%02X) is not valid UTF-8; convert the text to UTF-8 "
                         "first",
                         valid, (unsigned char)r->prompt[valid]);
    if (r->image >= 0 && m->image_lead && size &&
        strncmp(r->prompt, m->image_lead, strlen(m->image_lead)))
        return error_set(why, "a prompt about an image that is not in the model's chat template, "
                              "where the image has its place");
    if (answer_given_length(m, r) > 0 || m->length || r->answer_template) return 0;
    return error_set_code(why, ERROR_NO_LENGTH,
                          "this model has no length predictor: say how many tokens the answer "
                          "shall have");
}

static int template_check(const Multimodal *m, const AnswerRequest *r, Answer *answer, Error *why) {
    if (!r->answer_template) return 0;
    if (m->attention == ATTENTION_CAUSAL)
        return error_set(why, "a template is given, and this model is autoregressive: it does not "
                              "see what comes after a gap; use one of masked diffusion");
    if (strnlen(r->answer_template, (size_t)PROMPT_BYTES + 1) > PROMPT_BYTES)
        return error_set_code(why, ERROR_TOO_LONG,
                              "the template has more than %d bytes, the most that are looked at "
                              "(the model reads %d tokens): shorten it",
                              PROMPT_BYTES, language_longest(&m->language));
    Template *t = answer->template = calloc(1, sizeof *t);
    if (!t) return error_set(why, "out of memory for a template");
    const bool spaced = answer_after_space(&m->language, m->tokenizer, r->prompt);
    TRY(template_read_after(t, m->tokenizer, spaced, r->answer_template, why));
    int least = template_least(t);
    if (!r->length || r->length == least || (r->length > least && t->open_gaps)) return 0;
    return error_set(
        why,
        "the template has %s%d tokens, and an answer of %d is asked for: leave out the "
        "length, or change one of them",
        t->open_gaps ? "at least " : "", least, r->length);
}

/* ---- Room. ---- */

/* The fewest tokens that a request's answer can have. */
static int least_answer(const Multimodal *m, const AnswerRequest *r, const Answer *answer) {
    const int given = answer_given_length(m, r);
    if (given > 0) return given;
    return answer->template ? template_least(answer->template) : 1;
}

/* Rows of an image and of what a chat template has before it. */
static int image_rows(const Multimodal *m, const AnswerRequest *r) {
    return r->image >= 0 ? multimodal_image_rows(m) + m->image_lead_count : 0;
}

/* Tokens that a request's prompt may have beside an answer of so many; below 1 if there is none. */
static int prompt_room(const Multimodal *m, const AnswerRequest *r, int answer) {
    int longest = language_longest(&m->language);
    int head = (m->language.begin >= 0) + image_rows(m, r), end = m->language.end >= 0;
    if (answer >= longest) return 0;
    return infill_max_prompt(longest, m->answer_position, head, answer + end);
}

/* No prompt leaves room for the answer. */
static int no_room(const Multimodal *m, const AnswerRequest *r, int answer, Error *why) {
    int longest = language_longest(&m->language), image = image_rows(m, r);
    const AnswerRequest no_image = {.image = -1};
    if (prompt_room(m, r, 1) < 1 && prompt_room(m, &no_image, 1) >= 1)
        return error_set(why,
                         "an image does not fit: it takes %d rows of the %d tokens that the model "
                         "reads%s, which leaves none for a question; use a vision tower with "
                         "fewer patches (224 px in patches of 14 are 256)",
                         image, m->answer_position > 0 ? m->answer_position : longest,
                         m->answer_position > 0 ? " before an answer" : "");
    if (m->answer_position > 0)
        return error_set(why,
                         "an answer of %d tokens does not fit: the model reads %d tokens, and its "
                         "answers begin at %d (\"answer_position\"), so that they have %d at most; "
                         "ask for a shorter one",
                         answer, longest, m->answer_position, longest - m->answer_position - 1);
    if (m->language.llama)
        return error_set(why,
                         "an answer of %d tokens does not fit: the model reads %d tokens, of which "
                         "special tokens and the image take %d; ask for a shorter one",
                         answer, longest, language_frame_rows(&m->language) + image);
    if (image)
        return error_set(why,
                         "an answer of %d tokens does not fit: the model reads %d tokens, of which "
                         "the image takes %d and <s> and </s> 2; ask for a shorter one",
                         answer, longest, image);
    return error_set(why,
                     "an answer of %d tokens does not fit: the model reads %d tokens, of which "
                     "<s> and </s> take 2; ask for a shorter one",
                     answer, longest);
}

static int too_long(const Multimodal *m, const AnswerRequest *r, int tokens, int answer,
                    Error *why) {
    int longest = language_longest(&m->language), room = prompt_room(m, r, answer);
    char image[64] = "";
    if (r->image >= 0) snprintf(image, sizeof image, " %d of the image,", image_rows(m, r));
    if (m->answer_position > 0)
        return error_set_code(
            why, ERROR_TOO_LONG,
            "the prompt is %d tokens long, %d fit (of the %d tokens before the "
            "model's answers, \"answer_position\": <s>,%s the prompt): shorten it",
            tokens, room, m->answer_position, image);
    if (m->language.llama)
        return error_set_code(
            why, ERROR_TOO_LONG,
            "the prompt is %d tokens long, %d fit (the model reads %d with the %d "
            "of the answer): shorten it",
            tokens, room, longest, answer);
    return error_set_code(why, ERROR_TOO_LONG,
                          "the prompt is %d tokens long, %d fit (the model reads %d: <s>,%s the "
                          "prompt, %d of the answer, </s>): shorten it",
                          tokens, room, longest, image, answer);
}

int multimodal_check_length(const Multimodal *m, bool image, int length, Error *err) {
    AnswerRequest request = {.image = image ? 0 : -1, .length = length};
    int least = length > 0 ? length : 1;
    return prompt_room(m, &request, least) < 1 ? no_room(m, &request, least, err) : 0;
}

/* Tokens of the answer that a shortened prompt leaves room for: the given ones, else as many as
 * may be predicted, but a quarter of what the model reads at the most; for a template's open gaps
 * as many as are tried. */
static int answer_room(const Multimodal *m, const AnswerRequest *r, const Answer *a) {
    int least = least_answer(m, r, a), answer = least;
    if (answer_given_length(m, r) > 0) return least;
    if (a->template) {
        if (a->template->open_gaps) answer += TEMPLATE_BEAM;
        return prompt_room(m, r, answer) < 1 ? least : answer;
    }
    int quarter = language_longest(&m->language) / 4;
    answer = m->length->classes;
    if (answer > quarter) answer = quarter;
    while (answer > 1 && prompt_room(m, r, answer) < 1) answer /= 2;
    return answer < 1 ? 1 : answer;
}

/* Whether a prompt of answer->prompt_tokens fits; under `policy` some of them may be dropped. */
static int check_room(const Multimodal *m, const AnswerRequest *r, LongPrompts policy,
                      Answer *answer, Error *why) {
    int tokens = answer->prompt_tokens, least = least_answer(m, r, answer);
    int room = prompt_room(m, r, least);
    if (room < 1) return no_room(m, r, least, why);
    if (tokens <= room) return 0;
    if (policy == LONG_PROMPTS_KEEP_LAST) {
        answer->dropped_tokens = tokens - prompt_room(m, r, answer_room(m, r, answer));
        return 0;
    }
    answer->skipped = policy == LONG_PROMPTS_SKIP;
    return too_long(m, r, tokens, least, why);
}

/* ---- Turns. ---- */

/* The number of tokens of a turn; -1 for one that no training has before a question (examples.c):
 * without an answer, with a <mask> in it, too large. */
static int turn_size(const Multimodal *m, const AnswerRequest *r, const RecordTurn *turn, Ids *ids,
                     int *size, Error *err) {
    const int32_t mask = tokenizer_mask_id(m->tokenizer);
    size_t question = strlen(turn->prompt), answer = strlen(turn->response);
    *size = -1;
    if (question > TURNS_BYTES || answer > TURNS_BYTES) return 0;
    ids->count = 0;
    TRY(tokenizer_encode(m->tokenizer, turn->prompt, question, ids, err));
    const int asked = (int)ids->count;
    const bool spaced = answer_after_space(&m->language, m->tokenizer, turn->prompt);
    TRY(answer_text_encode(m->tokenizer, spaced, turn->response, answer, ids, err));
    const int answered = (int)ids->count - asked;
    for (int i = asked; i < asked + answered; i++)
        if (ids->ids[i] == mask) return 0;
    if (answered && prompt_room(m, r, answered) >= asked) *size = asked + answered;
    return 0;
}

/* Puts the turns that fit before the prompt, ids[before ..], which fits by itself. */
static int add_turns(const Multimodal *m, const AnswerRequest *r, Ids *ids, size_t before,
                     Answer *answer, Error *err) {
    const int room = prompt_room(m, r, answer_room(m, r, answer));
    int *sizes = calloc((size_t)r->turn_count, sizeof *sizes), first = r->turn_count, status = 0;
    Ids turn = {0};
    JoinedText joined = {0};
    if (!sizes) return error_set(err, "out of memory for %d turns", r->turn_count);
    int64_t size = (int64_t)(ids->count - before);
    int i = r->turn_count;
    while (i-- > 0 && size <= room &&
           status == 0) { /* those before them keep 0, and do not count */
        status = turn_size(m, r, &r->turns[i], &turn, &sizes[i], err);
        if (sizes[i] < 0) break;
        size += sizes[i];
    }
    if (status == 0)
        status = turns_encode(&joined, m->tokenizer, r->turns, sizes, r->turn_count, r->prompt,
                              room, ids, before, &first, err);
    answer->prompt_tokens = (int)(ids->count - before);
    answer->dropped_turns = first;
    ids_free(&turn);
    joined_text_free(&joined);
    free(sizes);
    return status;
}

static void drop_begin(const LanguageModel *m, Ids *ids, size_t before) {
    size_t count = ids->count - before;
    if (count) language_drop_begin(m, ids->ids + before, &count);
    ids->count = before + count;
}

/* The ids of a prompt's text; of one about an image in a chat template, those after the image. */
static int prompt_encode(const Multimodal *m, const AnswerRequest *r, Ids *ids, Error *err) {
    const size_t before = ids->count, size = strlen(r->prompt);
    if (r->image < 0 || !m->image_lead) {
        TRY(tokenizer_encode(m->tokenizer, r->prompt, size, ids, err));
        drop_begin(&m->language, ids, before);
        return 0;
    }
    return *r->prompt ? prompt_after_image(m->tokenizer, m->image_lead, r->prompt, ids, err) : 0;
}

/* Appends the ids of a request's prompt if it can be answered, else answer->error says why not. */
static int request_encode(const Multimodal *m, const AnswerRequest *r, LongPrompts policy, Ids *ids,
                          Answer *answer, Error *err) {
    Error why;
    size_t before = ids->count;
    *answer = (Answer){.best = -1, .dropped_turns = r->turn_count};
    if (check_text(m, r, &why) || template_check(m, r, answer, &why)) {
        answer->skipped = policy == LONG_PROMPTS_SKIP &&
                          strnlen(r->prompt, (size_t)PROMPT_BYTES + 1) > PROMPT_BYTES;
        return answer_refuse(answer, &why, err);
    }
    TRY(prompt_encode(m, r, ids, err));
    answer->prompt_tokens = (int)(ids->count - before);
    int status = answer->prompt_tokens || !*r->prompt
                     ? check_room(m, r, policy, answer, &why)
                     : error_set(&why, "nothing of the prompt is left in the tokenizer's alphabet");
    if (status == 0 && r->turn_count && !answer->dropped_tokens)
        TRY(add_turns(m, r, ids, before, answer, err));
    int kept = status ? 0 : answer->prompt_tokens - answer->dropped_tokens;
    if (answer->dropped_tokens)
        memmove(ids->ids + before, ids->ids + ids->count - kept, (size_t)kept * sizeof *ids->ids);
    ids->count = before + (size_t)kept;
    return status ? answer_refuse(answer, &why, err) : 0;
}

int multimodal_check_long(const Multimodal *m, const AnswerRequest *request, LongPrompts policy,
                          Answer *answer, Error *err) {
    Ids ids = {0};
    int status = request_encode(m, request, policy, &ids, answer, err);
    answer_template_free(answer->template);
    answer->template = NULL;
    ids_free(&ids);
    return status;
}

int multimodal_check(const Multimodal *m, const AnswerRequest *request, int *tokens, Error *err) {
    Answer answer;
    int status = multimodal_check_long(m, request, LONG_PROMPTS_REFUSE, &answer, err);
    if (tokens) *tokens = answer.prompt_tokens;
    if (status == 0 && answer.error)
        status = error_set_code(err, (ErrorCode)answer.code, "%s", answer.error);
    free(answer.error);
    return status;
}

/* ---- Many. ---- */

bool template_predicted(const Template *t, const LengthPredictor *length, const Answer *answer) {
    return t->open_gaps && length && answer->prompt_tokens;
}

static int refuse_image(const AnswerRequest *r, int images, Answer *answer, Error *err) {
    Error why;
    error_write(&why, "image %d of %d is asked about: there is no such image", r->image + 1,
                images);
    *answer = (Answer){.best = -1, .dropped_turns = r->turn_count};
    return answer_refuse(answer, &why, err);
}

int prompts_encode(Prompts *p, const Multimodal *m, const AnswerRequest *requests, int count,
                   int images, LongPrompts policy, Answer *answers, Error *err) {
    *p = (Prompts){.items = calloc((size_t)count + 1, sizeof *p->items),
                   .request = calloc((size_t)count + 1, sizeof *p->request)};
    if (!p->items || !p->request) return error_set(err, "out of memory for %d prompts", count);
    for (int i = 0; i < count; i++) {
        const AnswerRequest *r = &requests[i];
        if (r->image >= images) {
            TRY(refuse_image(r, images, &answers[i], err));
            continue;
        }
        TRY(request_encode(m, r, policy, &p->ids, &answers[i], err));
        if (answers[i].error) continue;
        const Template *t = answers[i].template;
        p->predict |=
            answer_given_length(m, r) <= 0 && (!t || template_predicted(t, m->length, &answers[i]));
        p->request[p->count] = i;
        p->items[p->count++] =
            (InfillPrompt){.count = answers[i].prompt_tokens - answers[i].dropped_tokens,
                           .image = r->image < 0 ? -1 : r->image};
    }
    const int32_t *at = p->ids.ids;
    for (int i = 0; i < p->count; i++) p->items[i].ids = at, at += p->items[i].count;
    return 0;
}

void prompts_free(Prompts *p) {
    free(p->items), free(p->request);
    ids_free(&p->ids);
    *p = (Prompts){0};
}
