/* text.c - text tasks: answers lines of {"inputs", "targets"} and scores the answers. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/cli/choices.h"
#include "apps/cli/processes.h"
#include "apps/cli/prompt_options.h"
#include "apps/cli/report.h"
#include "apps/eval/eval.h"
#include "apps/eval/result.h"
#include "apps/eval/running.h"
#include "apps/eval/text_score.h"
#include "apps/eval/together.h"
#include "projector/answer_text.h"
#include "projector/model_chat.h"

static const CommandHelp help = {
    .name = "eval text",
    .usage = "[options] --task TASK FILE... --out FOLDER",
    .about =
        "Answers lines of {\"inputs\", \"targets\"} verbatim, or the questions of a file of "
        "another\n"
        "format (GSM8K, MGSM, MMLU, BBH, TyDiQA, tables, parallel files; data/README.md), "
        "few-shot\n"
        "or not, and scores them:\n"
        "\n"
        "  translation  BLEU and chrF, as sacrebleu\n"
        "  summary      Rouge-1, 2 and L, as rouge-score\n"
        "  choice       the letter of the choice, in one step, one token; with --subjects a table\n"
        "               and the mean over subjects (MMLU)\n"
        "  exact        exact match and F1, in 10 steps; of several files (TyDiQA's languages) a\n"
        "               table and the mean\n"
        "  number       the last integer, in answers of 60 tokens (GSM8K, MGSM)\n"
        "\n"
        "Steps and lengths are the paper's; --steps, --length and --lengths override them.\n"
        "Scores have 95 % confidence intervals, by bootstrap as sacrebleu's. Files in --out:\n"
        "answers.jsonl (appended batch by batch), FILE.answers.txt and FILE.targets.txt for\n"
        "other scorers, unanswered.jsonl, settings.json, scored.jsonl with what came of each\n"
        "line (for `easyfirst eval compare`), and result.json with all scores and what they\n"
        "were measured with. Lines that cannot be answered are\n"
        "reported and count as wrong; the exit status is then 1. A prompt that leaves no room\n"
        "for its answer is skipped and not scored, as in the paper (--long-prompts refuse\n"
        "counts it as wrong); their number is printed. An interrupted run resumes with the same\n"
        "command.",
    .examples =
        "easyfirst eval text -m model --task translation test.de-en.jsonl --beam 5 --out de-en\n"
        "easyfirst eval text -m model --task choice mmlu.jsonl --subjects index2subject.json \\\n"
        "    --out mmlu\n"
        "easyfirst eval text -m model --task exact 0shot.*.jsonl --lengths target --out tydiqa",
};

/* How long answers are: as the task has it, as the length predictor says, as the targets. */
typedef enum TextLengths { LENGTHS_TASK, LENGTHS_PREDICTED, LENGTHS_TARGET } TextLengths;

static const char *const lengths_names[] = {"task", "predicted", "target", NULL};

typedef struct TextEval {
    EvalOptions options;
    EvalTextOptions score;
    int task; /* an EvalTask; -1: not said */
    TextLengths lengths;
    const char *subjects_path;
    bool steps_given;
    GivenChoices choices; /* --one-of */
    char **paths;         /* argv's, or that of `parallel` */
    int path_count;
    ParallelFiles parallel;
    char *only; /* the path of it */
    EvalTextSet set;
    EvalStore store;
    Session session;
    Timings timings;
    json_t *settings;
    bool worded; /* the items have their prompts */
    bool failed;
} TextEval;

/* ---- Lengths. ---- */

static int target_length(const TextEval *t, const char *prompt, const char *target, int *length,
                         Error *err) {
    return answer_target_length(&t->session.model.parts, prompt, target, length, err);
}

/* Defaults of a task; length 0: predicted. */
static int task_length(EvalTask task) {
    return task == EVAL_CHOICE ? 1 : task == EVAL_NUMBER ? 60 : 0;
}

static int word_items(TextEval *t, Error *err) {
    const CommonOptions *o = &t->options.common;
    for (int64_t i = 0; i < t->set.items.count; i++) {
        EvalItem *item = &t->set.items.items[i];
        if (item->answer || item->kind) continue;
        item->length = o->length                    ? o->length
                       : t->lengths == LENGTHS_TASK ? task_length(t->score.task)
                                                    : 0;
        if (!o->length && t->lengths == LENGTHS_TARGET)
            TRY(target_length(t, item->text, t->set.targets[i], &item->length, err));
        if (!item->text[strspn(item->text, " \t\r\n\v\f")])
            TRY(eval_item_bad(item, "empty input", err, "there is nothing to answer"));
        else if (!(item->prompt = strdup(item->text)))
            return error_set(err, "out of memory for a prompt");
        else
            TRY(model_chat_prompt(&t->session.model, NULL, 0, &item->prompt, err));
    }
    return 0;
}

/* ---- The command. ---- */

static json_t *settings_make(TextEval *t, Error *err) {
    json_t *files = json_array();
    const char *others[] = {t->set.prompt.answers, t->set.prompt.demonstrations};
    for (int f = 0; f < t->set.file_count + 2 && files; f++) {
        const char *path = f < t->set.file_count ? t->paths[f] : others[f - t->set.file_count];
        if (!path) continue;
        json_t *one = eval_file_json(path, err);
        if (!one || json_array_append_new(files, one)) {
            json_decref(files);
            return NULL;
        }
    }
    json_t *data = json_pack("{s:s, s:s, s:o}", "task", eval_task_names[t->task], "lengths",
                             lengths_names[t->lengths], "files", files);
    if (data && t->choices.one_of)
        json_object_set_new(data, "one_of", json_text(t->choices.one_of));
    if (data && t->choices.one_of) eval_choice_json(data, &t->options.common.answer);
    const PromptOptions *p = &t->set.prompt;
    if (data &&
        (p->prompt_template || p->instruction || p->no_instruction || p->shots || p->pairs)) {
        json_t *prompt = prompt_options_json(p);
        if (!prompt || json_object_set_new(data, "prompt", prompt)) {
            json_decref(data);
            data = NULL;
        }
    }
    if (!data) error_set(err, "out of memory for the settings");
    return data ? eval_settings_json(&t->options, &t->session, "eval text", data, err) : NULL;
}

/* What came of each record, and the intervals, which go into the scores. */
static int write_scored(TextEval *t, json_t *scores, Error *err) {
    Scored scored;
    TRY(eval_text_scored(&t->set, &t->score, &scored, err));
    int status = scored_write(&scored, &t->store, err);
    if (status == 0) status = scored_confidence(&scored, scores, err);
    scored_free(&scored);
    return status;
}

static int finish(void *user, Error *err) {
    TextEval *t = user;
    TRY(eval_store_finish(&t->store, &t->set.items, err));
    TRY(eval_text_files(&t->set, &t->store, err));
    json_t *scores = eval_text_score(&t->set, &t->score, err), *result = NULL;
    if (!scores) return -1;
    int status = write_scored(t, scores, err);
    if (status == 0)
        result = eval_result_json(json_incref(t->settings), &t->set.items, NULL,
                                  json_incref(scores), err);
    if (status == 0)
        status = result ? eval_store_json(&t->store, "result.json", json_incref(result), err) : -1;
    if (status == 0 && t->options.common.json)
        status = json_print_line(json_incref(result), JSON_DIGITS, err);
    else if (status == 0)
        eval_text_print(stdout, scores);
    json_decref(result);
    json_decref(scores);
    return status ? -1 : report_flush(err);
}

/* Again, of the whole, for the first of several processes. */
static int answer(void *user, Error *err) {
    TextEval *t = user;
    EvalOptions *o = &t->options;
    eval_store_close(&t->store);
    TRY(eval_store_open(&t->store, o->out, o->shard_index, o->shards, t->settings, o->model, err));
    TRY(eval_store_load(&t->store, &t->set.items, err));
    if (!t->worded) TRY(word_items(t, err));
    t->worded = true;
    Running running;
    running_texts(&running, &t->set, &t->score);
    EvalRunConfig config = {.what = "lines",
                            .running = running_callback(&running),
                            .session = &t->session,
                            .answer = o->common.answer,
                            .batch_tokens = o->batch_tokens,
                            .quiet = o->common.quiet};
    TRY(eval_run(&config, &t->store, &t->set.items, &t->timings, err));
    if (o->comm && o->shards) /* another process reads it, and reports */
        eval_store_close(&t->store);
    else
        eval_end(o, &t->set.items, NULL, &t->timings, t->session.device, &t->failed);
    return 0;
}

static int read_subjects(TextEval *t, Error *err) {
    int64_t spare;
    TRY(eval_text_subjects(&t->set, t->subjects_path, &spare, err));
    if (spare > 0 && !t->options.limit)
        report_error(
            "%s: it has %lld subjects more than there are lines: these are the subjects of "
            "the first ones",
            t->subjects_path, (long long)spare);
    return 0;
}

static int check_files(const TextEval *t, Error *err) {
    for (int f = 0; f < t->path_count; f++)
        TRY(eval_check_files(t->options.out, &(FileRole){"FILE", t->paths[f]}, 1, err));
    return eval_check_files(t->options.out, &(FileRole){"--subjects", t->subjects_path}, 1, err);
}

static int open_all(void *user, Error *err) {
    TextEval *t = user;
    EvalOptions *o = &t->options;
    TRY(check_files(t, err));
    TRY(eval_text_read(&t->set, t->paths, t->path_count, o->limit, t->score.task, err));
    eval_skipped_print("left out", &t->set.rejected);
    if (t->subjects_path) TRY(read_subjects(t, err));
    TRY(given_choices_read(&t->choices, err));
    for (int64_t i = 0; i < t->set.items.count && t->choices.count; i++) {
        t->set.items.items[i].choices = (const char *const *)t->choices.texts;
        t->set.items.items[i].choice_count = t->choices.count;
    }
    /* A model without a length predictor needs given lengths: */
    CommonOptions common = o->common;
    common.model.text_only = true;
    bool said =
        t->lengths == LENGTHS_TARGET || (t->lengths == LENGTHS_TASK && task_length(t->score.task));
    said |= t->choices.count > 0;
    if (!common.length && said) common.length = 1;
    TRY(eval_check_model(&common, false, err));
    TRY(session_open(&t->session, &common, err));
    t->timings.load_s = t->session.load_s;
    TRY(answer_decode_options(&t->session.model.parts, &o->common.answer.decode, err));
    eval_model_name(o);
    t->settings = settings_make(t, err);
    return t->settings ? 0 : -1;
}

static int check(TextEval *t, int count, char **words) {
    AnswerOptions *answer = &t->options.common.answer;
    if (t->task < 0) return options_wrong(&help, "which task? Name it with --task");
    Error err;
    if (prompt_options_check(&t->set.prompt, &t->parallel, &err))
        return options_wrong(&help, "%s", err.text);
    bool parallel = t->parallel.source || t->parallel.pairs;
    if (parallel && (count || (t->parallel.source && t->parallel.pairs)))
        return options_wrong(&help,
                             "parallel files are evaluated alone: no other file beside them");
    if (!parallel && !count) return options_wrong(&help, "no file is named");
    t->score.task = (EvalTask)t->task;
    if (t->score.task != EVAL_CHOICE && t->subjects_path)
        return options_wrong(&help, "--subjects belongs to --task choice");
    if (t->subjects_path && count > 1)
        return options_wrong(&help, "--subjects is about the lines of one file, not of %d", count);
    if (t->choices.one_of && (t->lengths != LENGTHS_TASK || t->options.common.length))
        return options_wrong(&help, "--one-of chooses answers, which have lengths of their own: "
                                    "leave out --length and --lengths");
    if (t->choices.by && !t->choices.one_of) return options_wrong(&help, "--by needs --one-of");
    choices_by_apply(t->choices.by, &t->options.common);
    if (!t->steps_given && t->score.task == EVAL_CHOICE) answer->decode.iterations = 1;
    if (!t->steps_given && t->score.task == EVAL_EXACT) answer->decode.iterations = 10;
    t->paths = words, t->path_count = count;
    if (parallel) {
        t->only = (char *)parallel_entry(&t->parallel, 0, &t->set.prompt);
        t->paths = &t->only, t->path_count = 1;
    }
    return eval_options_check(&help, &t->options);
}

int eval_text(int argc, char **argv) {
    TextEval t = {.task = -1, .store = {.fd = -1}};
    EvalOptions *o = &t.options;
    OptionGroup groups[4] = {
        {.title = "options",
         .options = {{"task", 0, OPTION_CHOICE, NULL, &t.task, "what the answers are scored as",
                      .names = eval_task_names},
                     {"lengths", 0, OPTION_CHOICE, NULL, &t.lengths,
                      "lengths of answers: the task's (default), predicted, or those of\n"
                      "the targets; --length N is one for all",
                      .names = lengths_names},
                     {"subjects", 0, OPTION_TEXT, "FILE", &t.subjects_path,
                      "choice: a JSON list of each line's subject"},
                     {"tokenize", 0, OPTION_CHOICE, NULL, &t.score.tokenize,
                      "translation: BLEU's tokenizer (default 13a)", .names = tokenize_names},
                     {"stem", 0, OPTION_FLAG, NULL, &t.score.stem,
                      "summary: compare words without their endings"},
                     {"one-of", 0, OPTION_TEXT, "A,B,...", &t.choices.one_of,
                      "answer with the likeliest of these"},
                     choices_by_option(&t.choices.by)}}};
    common_init(&o->common);
    o->common.answer.long_prompts = LONG_PROMPTS_SKIP;
    eval_group_add(o, &groups[0]);
    common_answer_group(&o->common, &groups[1]);
    groups[1].options[0].given = &t.steps_given;
    model_group(&o->common.model, &o->common.device, &o->common.threads, &groups[2]);
    prompt_group(&t.set.prompt, &t.parallel, &groups[3]);
    const int muted = processes_mute();
    int first, status = options_read(&help, groups, 4, argc, argv, &first);
    if (status < 0) status = check(&t, argc - first, argv + first);
    processes_unmute(muted, status >= 0);
    if (status < 0) {
        const EvalTogether together = {o, open_all, answer, finish, &t};
        const int failed = eval_together(&together);
        status = failed || t.failed;
    }
    eval_store_close(&t.store);
    eval_text_free(&t.set);
    given_choices_free(&t.choices);
    session_close(&t.session);
    json_decref(t.settings);
    return status;
}
